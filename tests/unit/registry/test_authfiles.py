"""Looking up logins in files, as containers-auth.json(5) and docker have them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.registry.authfiles import AuthFile, Login, find_auth_files, find_login


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


AUTHS = {
    "quay.io": auth("all:1"),
    "quay.io/team": auth("team:2"),
    "quay.io/team/app": auth("app:3:4"),
    "https://index.docker.io/v1/": auth("hub:5"),
    "docker.io/mine": auth("mine:6"),
    "https://old.io/v2/": auth("old:7"),
    "token.io": {**auth("<token>:"), "identitytoken": "refresh"},
    "bare-token.io": {"identitytoken": "refresh"},
    "empty.io": {},
    "null.io": None,
    "broken.io": {"auth": "!!!"},
    "nul.io": auth("user:password\0\0"),
    "colonless.io": auth("nothing"),
}


def find(tmp_path: Path, document: object, key: str) -> Login | None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps(document))
    return find_login([AuthFile(str(path))], key, {})


@pytest.mark.parametrize(
    ("key", "user"),
    [
        ("quay.io/other", "all"),
        ("quay.io/team/x", "team"),
        ("quay.io/teams/x", "all"),
        ("quay.io/team/app", "app"),
        ("quay.io/team/app/sub", "app"),
        ("quay.io", "all"),
        ("docker.io/library/busybox", "hub"),
        ("docker.io/mine/x", "mine"),
        ("docker.io", "hub"),
        ("old.io/x", "old"),
        ("quay.io:443/x", None),
        ("empty.io/x", None),
        ("null.io/x", None),
        ("colonless.io/x", None),
        ("index.io/x", None),
    ],
)
def test_lookup(tmp_path: Path, key: str, user: str | None) -> None:
    found = find(tmp_path, {"auths": AUTHS}, key)
    assert (found.credentials.user if found else None) == user


def test_values_are_decoded_and_never_shown(tmp_path: Path) -> None:
    found = find(tmp_path, {"auths": AUTHS}, "quay.io/team/app")
    assert found is not None
    assert found.credentials.password == "3:4"
    assert found.origin == f"{tmp_path}/auth.json"
    assert "3:4" not in repr(found)
    for key in ("token.io/x", "bare-token.io"):
        token = find(tmp_path, {"auths": AUTHS}, key)
        assert token is not None
        assert token.credentials.identity_token == "refresh"
    padded = find(tmp_path, {"auths": AUTHS}, "nul.io")
    assert padded is not None
    assert padded.credentials.password == "password"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"auths": AUTHS}), "an entry of auths is damaged"),
        ('{"auths": {"broken.io": {"auth": "c2VjcmV0"}', "not valid JSON"),
        ('{"auths": {"broken.io": ["c2VjcmV0"]}}', "expected an object, found an array"),
        ('{"auths": {"broken.io": {"auth": 5}}}', "expected a string, found a number"),
        ('["c2VjcmV0"]', "expected an object"),
        ('{"credHelpers": {"broken.io": 5}}', "expected a string"),
        ("x" * (1 << 21), "more than the 1048576 allowed"),
    ],
)
def test_damaged_files_say_so_without_a_word_of_theirs(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(InvalidFormat, match=message) as caught:
        find_login([AuthFile(str(path))], "broken.io/x", {})
    assert caught.value.where == str(path)
    assert "c2VjcmV0" not in str(caught.value)


def test_files_in_order(tmp_path: Path) -> None:
    first, second, legacy = (AuthFile(str(tmp_path / name)) for name in ("first", "second", "legacy"))
    Path(second.path).write_text(json.dumps({"auths": {"a.io": auth("two:x"), "b.io": auth("two:x")}}))
    Path(legacy.path).write_text(json.dumps({"https://c.io/v1/": auth("three:x"), "b.io/x": auth("three:x")}))
    files = [AuthFile(str(tmp_path / "missing")), first, second, AuthFile(legacy.path, legacy=True)]
    Path(first.path).write_text("")
    assert find_login(files, "a.io/x", {}) is not None
    Path(first.path).write_text(json.dumps({"auths": {"a.io": auth("one:x")}}))
    found = [find_login(files, f"{registry}/x", {}) for registry in ("a.io", "b.io", "c.io", "d.io")]
    assert [one.credentials.user if one else None for one in found] == ["one", "two", "three", None]


def test_which_files() -> None:
    def paths(environment: dict[str, str], chosen: str | None = None) -> list[str]:
        return [file.path for file in find_auth_files("/run", "/c", "/home", environment, chosen)]

    assert paths({}) == [
        "/run/containers/auth.json",
        "/c/containers/auth.json",
        "/home/.docker/config.json",
        "/home/.dockercfg",
    ]
    assert paths({"DOCKER_CONFIG": "/d"})[2] == "/d/config.json"
    assert paths({"REGISTRY_AUTH_FILE": "/f"}) == ["/f"]
    assert paths({"REGISTRY_AUTH_FILE": "/f"}, "/g") == ["/g"]


# Helpers


@pytest.fixture
def helper(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has a helper ``fake`` that knows one login, and one that fails."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, body in (
        (
            "fake",
            'read -r server\ncase "$1 $server" in\n"get helped.io"|"get docker.io"|"get https://index.docker.io/v1/")'
            ' echo "{\\"Username\\":\\"by $server\\",\\"Secret\\":\\"s\\"}";;\n'
            '*) echo "credentials not found in native keychain"; exit 1;;\nesac\n',
        ),
        ("broken", "echo 'the key ring is locked'\nexit 1\n"),
    ):
        path = directory / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)
    return {"PATH": f"relative:{directory}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("document", "key", "user"),
    [
        (
            {"credHelpers": {"helped.io": "fake"}, "auths": {"helped.io": auth("file:x")}},
            "helped.io/x",
            "by helped.io",
        ),
        ({"credHelpers": {"other.io": "fake"}, "auths": {"other.io": auth("file:x")}}, "other.io/x", None),
        ({"credHelpers": {"docker.io": "fake"}}, "docker.io/x", "by docker.io"),
        (
            {"credHelpers": {"https://index.docker.io/v1/": "fake"}},
            "docker.io/x",
            "by https://index.docker.io/v1/",
        ),
        ({"credsStore": "fake", "auths": {"helped.io": {}}}, "helped.io/x", "by helped.io"),
        ({"credsStore": "fake"}, "docker.io/library/x", "by https://index.docker.io/v1/"),
        ({"credsStore": "fake"}, "unknown.io/x", None),
        ({"credsStore": "fake", "auths": {"helped.io": auth("file:x")}}, "helped.io/x", "file"),
        ({"credsStore": "not-there"}, "helped.io/x", None),
        ({"credsStore": "desktop.exe"}, "helped.io/x", None),
    ],
)
def test_helpers_of_a_file(
    tmp_path: Path, helper: dict[str, str], document: object, key: str, user: str | None
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    found = find_login([AuthFile(str(path))], key, helper)
    assert (found.credentials.user if found else None) == user


def test_helper_of_a_registry_must_be_there(tmp_path: Path, helper: dict[str, str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {"helped.io": "missing", "evil.io": "../../bin/sh"}}))
    with pytest.raises(HostError, match="docker-credential-missing: the credential helper is not installed"):
        find_login([AuthFile(str(path))], "helped.io", helper)
    with pytest.raises(HostError, match="cannot be the name of a credential helper"):
        find_login([AuthFile(str(path))], "evil.io", helper)


def test_helpers_of_registries_conf(tmp_path: Path, helper: dict[str, str]) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"helped.io": auth("file:x"), "filed.io": auth("file:x")}}))
    files = [AuthFile(str(path))]

    def user(key: str, *helpers: str) -> str | None:
        found = find_login(files, key, helper, helpers)
        return found.credentials.user if found else None

    assert user("helped.io/x", "fake", "containers-auth.json") == "by helped.io"
    assert user("helped.io/x", "containers-auth.json", "fake") == "file"
    assert user("filed.io/x", "fake", "containers-auth.json") == "file"
    assert user("filed.io/x", "fake") is None
    # One that fails matters only if no other has it.
    assert user("filed.io/x", "broken", "missing", "containers-auth.json") == "file"
    with pytest.raises(Exception, match="docker-credential-broken: get failed: the key ring is locked"):
        user("none.io/x", "broken", "containers-auth.json")
