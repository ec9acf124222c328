"""Image references and digests: the distribution project's grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import DigestMismatch, InvalidFormat, InvalidReference
from usercontainerd.oci.digest import Digest, check_digest, compute_digest, is_digest, parse_digest
from usercontainerd.oci.reference import Reference, parse_reference

HEX = "0123456789abcdef" * 4
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("busybox", "", "busybox", None, None),
        ("busybox:1.36", "", "busybox", "1.36", None),
        ("library/busybox", "", "library/busybox", None, None),
        ("a/b/c", "", "a/b/c", None, None),
        ("docker.io/busybox", "docker.io", "library/busybox", None, None),
        ("index.docker.io/x/busybox", "docker.io", "x/busybox", None, None),
        ("localhost/x", "localhost", "x", None, None),
        ("localhost:5000/x", "localhost:5000", "x", None, None),
        ("quay.io:443/a/b:T_a.g-1", "quay.io:443", "a/b", "T_a.g-1", None),
        (f"quay.io/a/b@{SHA}", "quay.io", "a/b", None, SHA),
        (f"quay.io/a/b:tag@{SHA}", "quay.io", "a/b", "tag", SHA),
        ("[fd00::1]:5000/x", "[fd00::1]:5000", "x", None, None),
        ("Registry/x", "Registry", "x", None, None),
        ("a.b", "", "a.b", None, None),
        ("x__y/a--b.c_d", "", "x__y/a--b.c_d", None, None),
        ("x:" + "t" * 128, "", "x", "t" * 128, None),
        ("x" * 255, "", "x" * 255, None, None),
        (f"sha256:{HEX}", "", "sha256", HEX, None),
    ],
)
def test_parts(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    reference = parse_reference(text)
    assert (reference.registry, reference.repository) == (registry, repository)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("Busybox", "must be in lower case"),
        ("quay.io/Foo/bar", "must be in lower case"),
        (HEX, "64 hexadecimal digits are an image ID"),
        ("a//b", "not a repository's name"),
        ("/a", "not a repository's name"),
        ("a/", "not a repository's name"),
        ("a___b", "not a repository's name"),
        ("-a", "not a repository's name"),
        ("a..b", "not a repository's name"),
        ("../x", "not a registry's host name"),
        ("quay.io/../x", "not a repository's name"),
        ("quay.io/", "name is missing"),
        ("a b", "not a repository's name"),
        ("a\n", "not a repository's name"),
        ("aé", "not a repository's name"),
        ("x:", "'' is not a tag"),
        ("x:.a", "is not a tag"),
        ("x:-a", "is not a tag"),
        ("x:a b", "is not a tag"),
        ("x:" + "t" * 129, "is not a tag"),
        ("x:a\n", "is not a tag"),
        ("x" * 256, "longer than 255"),
        ("x@", "is not a digest"),
        ("x@sha256:abc", "is not a digest"),
        (f"x@sha256:{HEX.upper()}", "is not a digest"),
        (f"x@md5:{HEX[:32]}", "is not a digest"),
        (f"x@{SHA}\n", "is not a digest"),
        ("host:99999/x", "is not a port"),
        ("host:0/x", "is not a port"),
        ("host:x/x", "not a registry's host name"),
        ("-h.io/x", "not a registry's host name"),
        ("user@host.io/x", "is not a digest"),
        ("http://host/x", "not a"),
        ("y" * 2000, "too long"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidReference, match=message):
        parse_reference(text)


def test_registries_and_defaults() -> None:
    short = parse_reference("busybox")
    assert short.is_short
    assert str(short.with_registry("docker.io")) == "docker.io/library/busybox"
    assert str(short.with_registry("quay.io/team")) == "quay.io/team/busybox"
    assert str(parse_reference("a/b").with_registry("docker.io")) == "docker.io/a/b"
    assert str(short.with_default_tag()) == "busybox:latest"
    assert short.wanted == "latest"
    pinned = parse_reference(f"x:1@{SHA}")
    assert pinned.with_default_tag() == pinned
    assert pinned.wanted == SHA
    assert str(pinned.with_digest(Digest(SHA))) == f"x@{SHA}"


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/x/busybox", "x/busybox"),
        ("quay.io/library/busybox", "quay.io/library/busybox"),
        ("docker.io/library/a/b", "library/a/b"),
    ],
)
def test_familiar(text: str, familiar: str) -> None:
    assert parse_reference(text).familiar == familiar


@given(st.text(max_size=60))
def test_whatever_parses_is_safe_in_paths_and_urls(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(reference)) == reference
    for part in f"{reference.registry}/{reference.repository}/{reference.wanted}".split("/"):
        assert part not in (".", "..")
        assert not set(part) & set("\\%?#@& \t\r\n\0")


def test_equality() -> None:
    assert parse_reference("x:1") == Reference("", "x", "1")
    assert len({parse_reference("x:1"), Reference("", "x", "1")}) == 1
    assert parse_reference("x:1") != "x:1"


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:",
     f"sha256:{HEX}0", f"sha256:{HEX[1:]}", f"SHA256:{HEX}", f"sha512:{HEX}", f"sha256:../{HEX[3:]}",
     f"sha256:{HEX}\n", f"sha256:{HEX[1:]}é", f"sha256+b64:{HEX}"],
)  # fmt: skip
def test_digests_refused(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(InvalidFormat, match="not a digest"):
        parse_digest(text)


def test_digests() -> None:
    digest = parse_digest(SHA)
    assert (digest.algorithm, digest.hex) == ("sha256", HEX)
    assert parse_digest(f"sha512:{HEX}{HEX}").algorithm == "sha512"
    empty = compute_digest(b"")
    assert empty == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    check_digest(b"", empty, what="blob")
    check_digest(b"x", compute_digest(b"x", "sha512"), what="blob")
    with pytest.raises(DigestMismatch) as caught:
        check_digest(b"x", empty, what="blob", where="there")
    assert str(empty) in str(caught.value)
    assert compute_digest(b"x") in str(caught.value)
