"""auth.json lookups and WWW-Authenticate challenges."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.registry.authentication import (
    credential_files,
    find_credentials,
    parse_challenges,
    parse_credentials,
)


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


FILE = json.dumps(
    {
        "auths": {
            "quay.io": auth("all:1"),
            "quay.io/team": auth("team:2"),
            "quay.io/team/app": auth("app:3:4"),
            "https://index.docker.io/v1/": auth("hub:5"),
            "token.io": {"auth": auth("<token>:")["auth"], "identitytoken": "refresh"},
            "empty.io": {},
            "broken.io": {"auth": "!!!"},
        },
        "credHelpers": {"x.io": "y"},
    }
).encode()


@pytest.mark.parametrize(
    ("registry", "repository", "user"),
    [
        ("quay.io", "other", "all"),
        ("quay.io", "team/x", "team"),
        ("quay.io", "teams/x", "all"),
        ("quay.io", "team/app", "app"),
        ("quay.io", "team/app/sub", "app"),
        ("docker.io", "library/busybox", "hub"),
        ("quay.io:443", "x", None),
        ("empty.io", "x", None),
    ],
)
def test_lookup(registry: str, repository: str, user: str | None) -> None:
    found = parse_credentials(FILE, "auth.json", registry, repository)
    assert (found.user if found else None) == user


def test_values_are_decoded_and_never_shown() -> None:
    found = parse_credentials(FILE, "auth.json", "quay.io", "team/app")
    assert found is not None
    assert found.password == "3:4"
    assert found.basic == f"Basic {base64.b64encode(b'app:3:4').decode()}"
    assert "3:4" not in repr(found)
    token = parse_credentials(FILE, "auth.json", "token.io", "x")
    assert token is not None
    assert token.identity_token == "refresh"
    with pytest.raises(InvalidFormat, match=r"^auth\.json: an entry of auths is damaged \(log in again\)$"):
        parse_credentials(FILE, "auth.json", "broken.io", "x")


def test_files_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text(json.dumps({"auths": {"a.io": auth("two:x"), "b.io": auth("two:x")}}))
    files = [str(tmp_path / "missing"), str(first), str(second)]
    first.write_text("")
    assert find_credentials(files, "a.io", "x") is not None
    first.write_text(json.dumps({"auths": {"a.io": auth("one:x")}}))
    found = [find_credentials(files, registry, "x") for registry in ("a.io", "b.io", "c.io")]
    assert [one.user if one else None for one in found] == ["one", "two", None]
    assert credential_files("/run", "/c", "/home", {"REGISTRY_AUTH_FILE": "/f"}) == ["/f"]
    assert credential_files("/run", "/c", "/home", {})[-1] == "/home/.docker/config.json"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t",service="s",scope="x:y:pull,push"',
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "x:y:pull,push"})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ('BASIC Realm=x, Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Negotiate", [("negotiate", {})]),
        ('Negotiate, Basic realm="a\\"b"', [("negotiate", {}), ("basic", {"realm": 'a"b'})]),
        ("", []),
        ('="x"', []),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
    ],
)  # fmt: skip
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in parse_challenges(header)] == expected


@given(st.text(alphabet='abAB=", \\\t', max_size=60))
def test_challenges_end(header: str) -> None:
    parse_challenges(header)
