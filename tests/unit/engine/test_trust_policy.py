"""image trust: the policy as lines, and changing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument, InvalidFormat
from usercontainerd.base.programs import Programs
from usercontainerd.cli.image_trust import render_line
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.registries.trust_policy import (
    TrustLine,
    build_requirements,
    check_trust_scope,
    list_trust,
    set_trust,
)
from usercontainerd.trust.gpg import parse_users
from usercontainerd.trust.policy import parse_policy

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    environment = {"HOME": str(tmp_path), "PATH": "/nonexistent"}
    return build_context(environment, Programs("/nonexistent"), 1000, 1000)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_lines(context: Context, tmp_path: Path) -> None:
    directory = tmp_path / ".config/containers/registries.d"
    directory.mkdir(parents=True)
    (directory / "a.yaml").write_text(
        "default-docker:\n  lookaside: file:///default\ndocker:\n  a.example:\n    lookaside: https://a.example/s\n"
    )
    signed = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
    document = {
        "default": REJECT,
        "transports": {
            "docker-daemon": {"": ACCEPT},
            "docker": {"a.example": [signed, {"type": "sigstoreSigned", "keyPath": "/k"}], "": REJECT},
            "dir": {"/a": [{"type": "sigstoreSigned", "pki": {}}]},
        },
    }
    lines = list_trust(context, parse_policy(json.dumps(document).encode(), "policy.json"))
    assert lines == [
        TrustLine("all", "default", "reject", "", "file:///default"),
        TrustLine("dir", "/a", "unsupported", "sigstoreSigned with pki", "file:///default"),
        TrustLine("docker-daemon", "", "accept", "", "file:///default"),
        TrustLine("repository", "", "reject", "", "file:///default"),
        # Without gpg nobody can say whose key it is.
        TrustLine("repository", "a.example", "signed", "unknown", "https://a.example/s"),
        TrustLine("repository", "a.example", "sigstoreSigned", "N/A", "https://a.example/s"),
    ]
    assert render_line(lines[0]) == {
        "transport": "all",
        "name": "* (default)",
        "repo_name": "default",
        "sigstore": "file:///default",
        "type": "reject",
    }
    assert "name" not in render_line(lines[3])


def test_setting(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    with pytest.raises(InvalidArgument, match="no default yet"):
        set_trust(context, "a.example", "accept", (), path=str(path))
    assert not path.exists()
    set_trust(context, "default", "reject", (), path=str(path))
    assert read(path) == {"default": REJECT}
    set_trust(context, "a.example", "accept", (), path=str(path))
    (tmp_path / "key").write_text("key")
    set_trust(context, "a.example/b:1", "signedBy", [str(tmp_path / "key")] * 2, path=str(path))
    one = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(tmp_path / "key")}
    assert read(path) == {
        "default": REJECT,
        "transports": {"docker": {"a.example": ACCEPT, "a.example/b:1": [one, one]}},
    }
    assert path.stat().st_mode & 0o777 == 0o644
    # What a link leads to is changed, not the link.
    link = tmp_path / "link.json"
    link.symlink_to(path)
    set_trust(context, "default", "accept", (), path=str(link))
    assert link.is_symlink()
    assert read(path)["default"] == ACCEPT


def test_the_users_own_policy(context: Context, tmp_path: Path) -> None:
    own = tmp_path / ".config/containers/policy.json"
    assert set_trust(context, "default", "reject", ()) == str(own)
    assert read(own)["default"] == REJECT
    # One that is damaged is for its owner to mend.
    own.write_text('{"default": []}')
    with pytest.raises(InvalidFormat):
        set_trust(context, "default", "reject", ())
    assert own.read_text() == '{"default": []}'


@pytest.mark.parametrize(
    "scope",
    [
        "default",
        "docker.io",
        "docker.io/library",
        "docker.io/library/busybox",
        "docker.io/library/busybox:1",
        f"a.example/b@sha256:{'0' * 64}",
        "localhost:5000",
        "localhost:5000/a",
        "*.example.com",
    ],
)
def test_scopes(scope: str) -> None:
    check_trust_scope(scope)


@pytest.mark.parametrize(
    "scope",
    [
        *("", "busybox", "library/busybox", "https://a.example", "a.example/", "a.example/B", "*.", "*"),
        *("a.*.example", "*.example.com/x", "index.docker.io", "a.example/b@sha256:0", "docker.io/busybox:1"),
    ],
)
def test_scopes_that_would_never_match(scope: str) -> None:
    with pytest.raises(InvalidArgument, match="full name"):
        check_trust_scope(scope)


@pytest.mark.parametrize(
    ("kind", "files", "what"),
    [
        ("signed", (), "no type of trust"),
        ("signedBy", (), "needs a key"),
        ("sigstoreSigned", (), "needs a key"),
        ("accept", ("/dev/null",), "does not go with"),
        ("signedBy", ("/nonexistent",), "no such file"),
    ],
)
def test_requirements_that_make_no_sense(kind: str, files: tuple[str, ...], what: str) -> None:
    with pytest.raises(InvalidArgument, match=what):
        build_requirements(kind, files)


def test_owners_of_keys() -> None:
    listing = (
        "tru::1:1:0:3:1:5\n"
        "pub:-:255:22:A:1:::-:::scSC:::::ed25519:::0:\n"
        "uid:-::::1::H::A \\x3a B <a@b>::::::::::0:\n"
    )
    assert parse_users(listing) == ["A : B <a@b>"]
    assert parse_users("") == []
    assert parse_users("uid:short\n") == []
