"""Programs that keep logins: what they may answer, and how they may misbehave."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import RuntimeFailure
from usercontainerd.registry import credential_helpers
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.credential_helpers import CredentialHelper, HelperMissing


def make(tmp_path: Path, body: str, name: str = "fake") -> CredentialHelper:
    program = tmp_path / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return CredentialHelper(name, {"PATH": f"{tmp_path}:/usr/bin:/bin"})


def test_logins_and_tokens(tmp_path: Path) -> None:
    answer = """read -r server; printf '{"ServerURL":"%s","Username":"u","Secret":"s"}' "$server" """
    found = make(tmp_path, answer).get("a.io")
    assert found is not None
    assert (found.user, found.password, found.identity_token) == ("u", "s", "")
    found = make(tmp_path, """echo '{"Username":"<token>","Secret":"t"}'""").get("a.io")
    assert found is not None
    assert (found.user, found.password, found.identity_token) == ("", "", "t")
    assert make(tmp_path, """echo '{"Username":"","Secret":""}'""").get("a.io") is None
    assert make(tmp_path, "echo credentials not found in native keychain; exit 1").get("a.io") is None


def test_nothing_is_on_the_command_line(tmp_path: Path) -> None:
    helper = make(tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/input')
    helper.store("a.io", Credentials("user", "secret"))
    assert (tmp_path / "arguments").read_text() == "store\n"
    assert (tmp_path / "input").read_text() == '{"ServerURL": "a.io", "Username": "user", "Secret": "secret"}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("exit 3", "get failed: it does not say why"),
        ("echo locked; exit 1", "get failed: locked"),
        ('echo \'{"Secret":"hidden"\'', "its answer is not what it should be"),
        ('echo \'{"Secret":["hidden"]}\'', "its answer is not what it should be"),
        ("echo '[\"hidden\"]'", "its answer is not what it should be"),
        ("kill -9 $$", "get failed"),
        ("yes hidden", "its answer is longer than"),
        ("exec sleep 100", "no answer within"),
        ("exec >&- ; exec sleep 100", "no answer within"),
    ],
)
def test_misbehaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    monkeypatch.setattr(credential_helpers, "TIMEOUT", 0.5)
    with pytest.raises(RuntimeFailure, match=message) as caught:
        make(tmp_path, body).get("a.io")
    assert caught.value.where == "docker-credential-fake"
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "../x", "x/y", "X", "a b", "x.exe", "a" * 65, "x\n"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(HelperMissing, match="cannot be the name"):
        CredentialHelper(name, {"PATH": str(tmp_path)}).get("a.io")


@pytest.mark.parametrize("path", ["", ".", "relative:"])
def test_only_absolute_directories_of_the_path_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    make(tmp_path, "exit 0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HelperMissing, match="docker-credential-fake: the credential helper is not installed"):
        CredentialHelper("fake", {"PATH": path}).get("a.io")


def test_login_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="too long"):
        make(tmp_path, "cat > /dev/null").store("a.io", Credentials("user", "x" * 40_000))
