"""policy.json: what is read from it, and that nothing odd in it opens a door."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import HostError, InvalidFormat, PullDenied, UsercontainerError
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    parse_full_reference,
)
from usercontainerd.trust.policy import (
    AcceptAnything,
    Keys,
    Policy,
    Reject,
    SignedBy,
    SigstoreSigned,
    Unsupported,
    parse_policy,
    policy_files,
    read_policy,
)
from usercontainerd.trust.scopes import (
    identify_by_path,
    identify_in_daemon,
    identify_in_docker_archive,
    identify_in_registry,
    identify_in_storage,
)

ACCEPT = {"type": "insecureAcceptAnything"}
REJECT = {"type": "reject"}
GPG = {"type": "signedBy", "keyType": "GPGKeys"}
KEY = base64.b64encode(b"key").decode()


def parse(document: Any) -> Policy:
    return parse_policy(json.dumps(document).encode(), "policy.json")


def parse_one(requirement: Any) -> Any:
    (parsed,) = parse({"default": [requirement]}).default
    return parsed


def test_requirements() -> None:
    assert isinstance(parse_one(ACCEPT), AcceptAnything)
    assert isinstance(parse_one(REJECT), Reject)
    signed = parse_one({**GPG, "keyPath": "/k"})
    assert signed == SignedBy("policy.default[0]", Keys(("/k",)), MatchRepoDigestOrExact())
    assert parse_one({**GPG, "keyPaths": ["/a", "/b"]}).keys == Keys(("/a", "/b"))
    assert parse_one({**GPG, "keyData": KEY}).keys == Keys((), (b"key",))
    # Long data may be broken into lines.
    assert parse_one({**GPG, "keyData": f"{KEY[:2]}\n{KEY[2:]}"}).keys == Keys((), (b"key",))
    sigstore = {"type": "sigstoreSigned"}
    assert isinstance(parse_one({**sigstore, "keyPath": "/k"}), SigstoreSigned)
    assert parse_one({**sigstore, "keyDatas": [KEY, KEY]}).keys == Keys((), (b"key", b"key"))
    assert parse_one({**sigstore, "keyPaths": ["/a"]}).keys == Keys(("/a",))


@pytest.mark.parametrize(
    ("requirement", "what"),
    [
        ({**GPG, "keyType": "X509Certificates", "keyPath": "/k"}, "keyType X509Certificates"),
        ({**GPG, "keyType": "signedByGPGKeys", "keyPath": "/k"}, "keyType signedByGPGKeys"),
        ({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}, "signedBaseLayer"),
        ({"type": "sigstoreSigned", "fulcio": {}, "rekorPublicKeyPath": "/r"}, "fulcio, rekorPublicKeyPath"),
        ({"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyData": KEY}, "rekorPublicKeyData"),
        ({"type": "sigstoreSigned", "pki": {}}, "pki"),
    ],
)
def test_what_cannot_be_checked_is_remembered(requirement: Any, what: str) -> None:
    parsed = parse_one(requirement)
    assert isinstance(parsed, Unsupported)
    assert what in parsed.what


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"default": null}',
        '{"default": []}',
        '{"default": [{}]}',
        '{"default": [null]}',
        '{"default": {"type": "insecureAcceptAnything"}}',
        '{"Default": [{"type": "insecureAcceptAnything"}]}',
        '{"default": [{"type": "insecureAcceptAnything"}], "transport": {}}',
        '{"default": [{"type": "insecureAcceptAnything"}], "transports": null}',
        '{"default": [{"type": "insecureAcceptAnything"}], "transports": []}',
        '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": null}}',
        '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"x": null}}}',
        '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"x": []}}}',
        # Twice the same key: readers would disagree on which counts.
        '{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}',
        '{"default": [{"type": "reject", "type": "insecureAcceptAnything"}]}',
        '{"default": [{"type": "reject"}], "transports": {"docker": {"a": [{"type": "reject"}], '
        '"a": [{"type": "insecureAcceptAnything"}]}}}',
        '{"default": [{"type": "insecureAcceptAnything"}]} x',
        '{"default": [{"type": "insecureAcceptAnything", "keyPath": "/k"}]}',
        '{"default": [{"type": "insecureacceptanything"}]}',
        '{"default": [{"type": "accept"}]}',
        '{"default": [{"type": 1}]}',
    ],
)
def test_files_that_are_refused_whole(text: str) -> None:
    with pytest.raises(InvalidFormat, match=r"^policy"):
        parse_policy(text.encode(), "policy.json")


@pytest.mark.parametrize(
    "requirement",
    [
        GPG,
        {**GPG, "keyPath": ""},
        {**GPG, "keyPath": None},
        {**GPG, "keyPath": ["/k"]},
        {**GPG, "keyPaths": "/k"},
        {**GPG, "keyPaths": []},
        {**GPG, "keyPaths": [""]},
        {**GPG, "keyPath": "/k", "keyData": KEY},
        {**GPG, "keyPath": "/k", "keyPaths": ["/k"]},
        {**GPG, "keyDatas": [KEY]},
        {**GPG, "keyData": "***"},
        {**GPG, "keyData": ""},
        {"type": "signedBy", "keyPath": "/k"},
        {"type": "signedBy", "keyType": "gpgKeys", "keyPath": "/k"},
        {**GPG, "keyPath": "/k", "signedidentity": {"type": "matchExact"}},
        {**GPG, "keyPath": "/k", "signedIdentity": None},
        {**GPG, "keyPath": "/k", "signedIdentity": "matchExact"},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "matchAnything"}},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "matchExact", "x": 1}},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "exactReference"}},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "exactReference", "dockerReference": "busybox"}},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "exactReference", "dockerReference": "Bad:1"}},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "exactRepository", "dockerRepository": ""}},
        {**GPG, "keyPath": "/k", "signedIdentity": {"type": "remapIdentity", "prefix": "a.b"}},
        *(
            {
                **GPG,
                "keyPath": "/k",
                "signedIdentity": {"type": "remapIdentity", "prefix": prefix, "signedPrefix": "a.example"},
            }
            for prefix in (
                "",
                "busybox",
                "docker.io/library/busybox:1",
                "a.example/",
                "/x",
                "a.example/X",
                "*.x",
            )
        ),
        {"type": "sigstoreSigned"},
        {"type": "sigstoreSigned", "keyPath": "/k", "keyDatas": [KEY]},
        {"type": "sigstoreSigned", "keyPath": "/k", "keyType": "GPGKeys"},
        {"type": "sigstoreSigned", "keyPath": "/k", "fulcio": {}},
        {"type": "signedBaseLayer"},
    ],
)
def test_requirements_that_are_refused(requirement: Any) -> None:
    with pytest.raises(InvalidFormat, match=r"policy\.default\[0\]"):
        parse_one(requirement)


@pytest.mark.parametrize(
    ("transport", "scope"),
    [
        ("dir", "relative"),
        ("dir", "/"),
        ("oci", "/a/../b"),
        ("oci-archive", "/a/"),
        ("docker-archive", "/a"),
        ("tarball", "x"),
    ],
)
def test_scopes_that_could_never_match(transport: str, scope: str) -> None:
    with pytest.raises(InvalidFormat, match="transports"):
        parse({"default": [ACCEPT], "transports": {transport: {scope: [REJECT]}}})


def test_reading(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    files = [str(first), str(second)]
    with pytest.raises(PullDenied, match="no signature policy"):
        read_policy(files)
    second.write_text(json.dumps({"default": [ACCEPT]}))
    assert read_policy(files).path == str(second)
    # A stronger file counts alone, also if it is damaged, or cannot be read.
    first.write_text("")
    with pytest.raises(InvalidFormat):
        read_policy(files)
    first.unlink()
    first.symlink_to(tmp_path / "nowhere")
    with pytest.raises(HostError):
        read_policy(files)
    first.unlink()
    first.mkdir()
    with pytest.raises(UsercontainerError):
        read_policy(files)
    assert policy_files(["/home/a/.config"]) == [
        "/home/a/.config/containers/policy.json",
        "/etc/containers/policy.json",
        "/usr/share/containers/policy.json",
    ]


def scope_of(scopes: list[str], image: Any) -> str:
    """Which of the scopes decides; each has a requirement that tells it apart."""
    listed = {scope: [{**GPG, "keyPath": f"key of {scope}"}] for scope in scopes}
    policy = parse({"default": [REJECT], "transports": {image.transport: listed}})
    (found,) = policy.find_requirements(image)
    return "default" if isinstance(found, Reject) else found.keys.paths[0].removeprefix("key of ")  # type: ignore[attr-defined]


REGISTRY_SCOPES = [
    "",
    "*.com",
    "*.example.com",
    "reg.example.com:5000",
    "reg.example.com:5000/a",
    "reg.example.com:5000/a/b",
    "reg.example.com:5000/a/b:1",
]


def test_the_most_specific_scope_counts() -> None:
    image = identify_in_registry(parse_reference("reg.example.com:5000/a/b:1"))
    scopes = list(REGISTRY_SCOPES)
    while scopes:
        assert scope_of(scopes, image) == scopes[-1]
        scopes.pop()
    assert scope_of([], image) == "default"


@pytest.mark.parametrize(
    ("reference", "scope"),
    [
        ("reg.example.com:5000/a/b:2", "reg.example.com:5000/a/b"),
        ("reg.example.com:5000/a/bc:1", "reg.example.com:5000/a"),
        ("reg.example.com:5000/ab:1", "reg.example.com:5000"),
        ("reg.example.com/a/b:1", "*.example.com"),
        ("example.com/a:1", "*.com"),
        ("evil-example.com/a:1", "*.com"),
        ("localhost/a:1", ""),
    ],
)
def test_scopes_end_at_boundaries(reference: str, scope: str) -> None:
    assert scope_of(REGISTRY_SCOPES, identify_in_registry(parse_reference(reference))) == scope


def test_a_digest_says_more_than_a_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    image = identify_in_registry(parse_reference(f"a.example/b:1@{digest}"))
    assert str(image.reference) == f"a.example/b@{digest}"
    assert scope_of(["a.example/b:1", f"a.example/b@{digest}"], image) == f"a.example/b@{digest}"
    assert scope_of(["a.example/b:1"], image) == "default"


def test_other_transports(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    top = str(tmp_path.resolve())
    image = identify_by_path("oci", f"{tmp_path}/link/x")
    assert image.scopes[:2] == (f"{top}/x", top)
    assert "/" not in image.scopes
    assert scope_of(["", top], image) == top
    assert identify_by_path("dir", None).scopes == ()
    reference = parse_full_reference("busybox:1")
    assert identify_in_docker_archive(reference).scopes == ()
    assert identify_in_daemon(None).scopes == ()
    assert "docker.io/library" in identify_in_daemon(reference).scopes
    assert identify_in_storage("overlay", "/r", reference, "12").scopes == (
        "[overlay@/r]docker.io/library/busybox:1@12",
        "[overlay@/r]docker.io/library/busybox:1",
        "[overlay@/r]docker.io/library/busybox",
        "[overlay@/r]docker.io/library",
        "[overlay@/r]docker.io",
        "[overlay@/r]",
        "[/r]",
    )


D1, D2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
REMAP = RemapIdentity("mirror.example:5000/vendor", "vendor.example")


@pytest.mark.parametrize(
    ("rule", "image", "signed", "accepted"),
    [
        (MatchExact(), "a.b/c:1", "a.b/c:1", True),
        (MatchExact(), "a.b/c:1", "a.b/c:2", False),
        (MatchExact(), "a.b/c:1", "a.b/c", False),
        (MatchExact(), f"a.b/c@{D1}", "a.b/c:1", False),
        (MatchExact(), f"a.b/c@{D1}", f"a.b/c@{D1}", True),
        (MatchExact(), "docker.io/library/busybox:1", "busybox:1", True),
        (MatchExact(), "a.b/c", "a.b/c", False),
        (MatchExact(), None, "a.b/c:1", False),
        (MatchRepoDigestOrExact(), "a.b/c:1", "a.b/c:1", True),
        (MatchRepoDigestOrExact(), "a.b/c:1", "a.b/c:2", False),
        (MatchRepoDigestOrExact(), f"a.b/c@{D1}", "a.b/c:2", True),
        (MatchRepoDigestOrExact(), f"a.b/c@{D1}", f"a.b/c@{D2}", True),
        (MatchRepoDigestOrExact(), f"a.b/c@{D1}", "a.b/c", False),
        (MatchRepoDigestOrExact(), f"a.b/c@{D1}", "a.b/d:1", False),
        (MatchRepoDigestOrExact(), "a.b/c", "a.b/c:1", False),
        (MatchRepoDigestOrExact(), None, "a.b/c:1", False),
        (MatchRepository(), "a.b/c:1", "a.b/c:2", True),
        (MatchRepository(), "a.b/c:1", "a.b/c", True),
        (MatchRepository(), "a.b/c:1", "a.b/c/d:1", False),
        (MatchRepository(), None, "a.b/c:1", False),
        (ExactReference(parse_full_reference("busybox:1")), None, "docker.io/library/busybox:1", True),
        (ExactReference(parse_full_reference("busybox:1")), "a.b/c:1", "busybox:2", False),
        (ExactReference(parse_full_reference("busybox:1")), "a.b/c:1", "busybox", False),
        (ExactRepository(parse_full_reference("busybox:1")), None, "busybox", True),
        (ExactRepository(parse_full_reference("busybox")), None, "busybox2:1", False),
        (REMAP, "mirror.example:5000/vendor/a:1", "vendor.example/a:1", True),
        (REMAP, "mirror.example:5000/vendor/a:1", "vendor.example/a:2", False),
        (REMAP, f"mirror.example:5000/vendor/a@{D1}", "vendor.example/a:2", True),
        (REMAP, "mirror.example:5000/vendor/a:1", "mirror.example:5000/vendor/a:1", False),
        (REMAP, "mirror.example:5000/vendored/a:1", "mirror.example:5000/vendored/a:1", True),
        (REMAP, "mirror.example:5000/vendored/a:1", "vendor.exampleed/a:1", False),
        (REMAP, "elsewhere.example/a:1", "elsewhere.example/a:1", True),
        # The whole host alone, once mapped, is no repository.
        (REMAP, "mirror.example:5000/vendor:1", "vendor.example:1", False),
        (RemapIdentity("a.b", "docker.io"), "a.b/busybox:1", "docker.io/library/busybox:1", False),
        (RemapIdentity("a.b", "docker.io/library"), "a.b/busybox:1", "busybox:1", True),
        (REMAP, None, "vendor.example/a:1", False),
    ],
)
def test_identity(rule: Any, image: str | None, signed: str, accepted: bool) -> None:
    reference = None if image is None else parse_reference(image)
    assert rule.accepts(reference, parse_full_reference(signed)) is accepted
