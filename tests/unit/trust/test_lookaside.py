"""registries.d: the part of YAML that is read, and where signatures are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.lookaside import (
    LookasideConfiguration,
    lookaside_directories,
    merge_lookaside,
    read_local_signature,
    read_lookaside,
)
from usercontainerd.trust.yaml import parse_mapping

# As Fedora has them.
DEFAULT = """\
# This is a default registries.d configuration file.
---
# lookaside: indicates a location that is read and write

default-docker:
#  lookaside: file:///var/lib/containers/sigstore
#  lookaside-staging: file:///var/lib/containers/sigstore
"""
RED_HAT = """\
docker:
     registry.access.redhat.com:
         sigstore: https://access.redhat.com/webassets/docker/content/sigstore
"""
OWN = """\
docker:
    "registry.example.com:5000":  # a comment
        lookaside: 'https://example.com/x#y'
    registry.example.com:5000/team:
        use-sigstore-attachments: true
        lookaside-staging: file:///staging
    registry.example.com:5000/team/app:1:
        lookaside: file:///local
    registry.example.com:5000/team/off: {}
"""


def test_yaml() -> None:
    assert parse_mapping("", "f") == {}
    assert parse_mapping("# nothing\n", "f") == {}
    assert parse_mapping(DEFAULT, "f") == {"default-docker": None}
    assert parse_mapping(RED_HAT, "f") == {
        "docker": {
            "registry.access.redhat.com": {
                "sigstore": "https://access.redhat.com/webassets/docker/content/sigstore"
            }
        }
    }
    parsed = parse_mapping(OWN, "f")["docker"]
    assert isinstance(parsed, dict)
    assert parsed["registry.example.com:5000"] == {"lookaside": "https://example.com/x#y"}
    assert parsed["registry.example.com:5000/team/off"] == {}
    assert parsed["registry.example.com:5000/team"] == {
        "use-sigstore-attachments": True,
        "lookaside-staging": "file:///staging",
    }
    assert parse_mapping("a:\n  b: 1 # x\n  c: ~\nd: no\n", "f") == {"a": {"b": "1", "c": None}, "d": "no"}
    assert parse_mapping("a:\r\n  b: c\r\n", "f") == {"a": {"b": "c"}}
    # Deeper, and back again by two.
    assert parse_mapping("a:\n b:\n  c: d\ne: f\n", "f") == {"a": {"b": {"c": "d"}}, "e": "f"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n", 1),
        ("a: [b]\n", 1),
        ("a: {b: c}\n", 1),
        ("a: &x b\n", 1),
        ("a: *x\n", 1),
        ("a: !!str b\n", 1),
        ("a: |\n  b\n", 1),
        ("a: >\n  b\n", 1),
        ("a: b: c\n", 1),
        ("a\n", 1),
        ("? a\n", 1),
        ("a:\n\tb: c\n", 2),
        ("a:\n  b: c\n d: e\n", 3),
        ("  a: b\nc: d\n", 2),
        ("a: b\n  c: d\n", 2),
        ("a: b\na: c\n", 2),
        ("a:\n  b: c\n  b: d\n", 3),
        ("a: b\n---\nc: d\n", 2),
        ('a: "b\n', 1),
        ('a: "b" c\n', 1),
        ('a: "\\x41"\n', 1),
        ("%YAML 1.2\n", 1),
        ("<<: a\n", 1),
    ],
)
def test_yaml_of_other_kinds_is_refused(text: str, line: int) -> None:
    if text.startswith("<<"):
        # A merge key is a key like others here: it means nothing.
        assert parse_mapping(text, "f") == {"<<": "a"}
        return
    with pytest.raises(InvalidFormat, match=f"^f: line {line}: "):
        parse_mapping(text, "f")


@given(st.text(alphabet="ab:#'\"-{}[] \n\t~|&*", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_mapping(text, "f"), dict)
    except InvalidFormat:
        pass


def merge(*texts: str) -> LookasideConfiguration:
    return merge_lookaside([(f"{number}.yaml", text) for number, text in enumerate(texts)], "/home/a")


HOST = "registry.example.com:5000"


@pytest.mark.parametrize(
    ("reference", "base", "attachments"),
    [
        (f"{HOST}/team/app:1", "file:///local", True),
        (f"{HOST}/team/app:2", "https://example.com/x", True),
        (f"{HOST}/team/off:1", "https://example.com/x", True),
        (f"{HOST}/teams:1", "https://example.com/x", False),
        ("registry.example.com/team/app:1", "file:///default", False),
        ("docker.io/library/x:1", "file:///default", False),
    ],
)
def test_each_key_of_the_most_specific_section(reference: str, base: str, attachments: bool) -> None:
    own = OWN.replace("#y", "")
    configuration = merge("default-docker:\n  lookaside: file:///default\n", own, RED_HAT)
    storage = configuration.locate(parse_reference(reference))
    assert (storage.base, storage.attachments) == (base, attachments)


def test_urls_of_signatures() -> None:
    storage = merge(RED_HAT).locate(parse_reference("registry.access.redhat.com/ubi9/ubi:latest"))
    digest = Digest(f"sha256:{'a' * 64}")
    assert storage.locate("ubi9/ubi", digest, 3) == (
        f"https://access.redhat.com/webassets/docker/content/sigstore/ubi9/ubi@sha256={'a' * 64}/signature-3"
    )
    storage = merge().locate(parse_reference("a.example/b:1"))
    assert storage.base == "file:///home/a/.local/share/containers/sigstore"
    assert not storage.attachments


@pytest.mark.parametrize(
    "text",
    [
        "docker: x\n",
        "docker:\n  a.b: x\n",
        "docker:\n  a.b:\n    lookaside: true\n",
        "docker:\n  a.b:\n    use-sigstore-attachments: 'true'\n",
        *(
            f"docker:\n  a.b:\n    lookaside: {url}\n"
            for url in (
                "/var/lib",
                "ftp://a.b/c",
                "file://host/path",
                "file:relative",
                "https:///x",
                "https://user:password@a.b/c",
                "https://a.b/c?d",
                "https://[a.b/c",
            )
        ),
    ],
)
def test_sections_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidFormat, match=r"^0\.yaml: "):
        merge(text)


def test_a_section_is_in_one_file_only() -> None:
    with pytest.raises(InvalidFormat, match=r"^1\.yaml: .*another file"):
        merge(RED_HAT, RED_HAT)
    with pytest.raises(InvalidFormat, match="default-docker is in another"):
        merge("default-docker: {}\n", "default-docker: {}\n")
    # One that says nothing does no harm.
    assert merge(DEFAULT, "default-docker: {}\n")


def test_reading(tmp_path: Path) -> None:
    user, system = tmp_path / "user", tmp_path / "system"
    directories = [str(user), str(system)]
    assert not read_lookaside(directories, "/h").sections
    system.mkdir()
    (system / "a.yaml").write_text(RED_HAT)
    (system / "b.yml").write_text("- ignored")
    assert list(read_lookaside(directories, "/h").sections) == ["registry.access.redhat.com"]
    user.mkdir()
    assert not read_lookaside(directories, "/h").sections
    (user / "a.yaml").write_bytes(b"\xff")
    with pytest.raises(InvalidFormat, match="UTF-8"):
        read_lookaside(directories, "/h")
    (user / "a.yaml").unlink()
    (user / "a.yaml").mkdir()
    with pytest.raises(HostError):
        read_lookaside(directories, "/h")
    assert lookaside_directories(["/c"])[:2] == ["/c/containers/registries.d", "/etc/containers/registries.d"]


def test_local_signatures(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "signature-1"
    path.parent.mkdir()
    url = f"file://{tmp_path}/a%20b/signature-1"
    assert read_local_signature(url, 10) is None
    path.write_bytes(b"x" * 10)
    assert read_local_signature(url, 10) == b"x" * 10
    with pytest.raises(HostError, match="longer"):
        read_local_signature(url, 9)
    path.unlink()
    path.mkdir()
    with pytest.raises(HostError):
        read_local_signature(url, 10)
