"""The options about registries, and the questions at the terminal."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli import terminal
from usercontainerd.cli.call import Call
from usercontainerd.cli.options import Verb, parse_options
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, read_access
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess

VERB = Verb("pull", "IMAGE", "", ACCESS_OPTIONS)


def read(*words: str) -> RegistryAccess:
    return read_access(Call("pull", parse_options(VERB, list(words)), {"HOME": "/"}))


def test_what_is_not_said_is_as_configured() -> None:
    assert read() == AS_CONFIGURED


def test_values(tmp_path: Path) -> None:
    (tmp_path / "auth.json").touch()
    access = read(
        "--authfile", f"{tmp_path}/auth.json", "--cert-dir=/c", "--tls-verify=false", "--creds", "u:p:q"
    )
    assert (access.authfile, access.cert_dir, access.tls_verify) == (f"{tmp_path}/auth.json", "/c", False)
    assert access.credentials is not None
    assert (access.credentials.user, access.credentials.password) == ("u", "p:q")
    assert read("--tls-verify").tls_verify is True
    assert "p:q" not in repr(access)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--authfile", "/missing/auth.json"), "--authfile /missing/auth.json: there is no such file"),
        (("--creds", ":secret"), "needs a user name"),
        (("--creds", "user"), "needs a password where there is no terminal"),
        (("--tls-verify=maybe",), "is true or false"),
    ],
)
def test_refused(words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "has_keyboard", lambda: False)
    with pytest.raises(InvalidArgument, match=message) as caught:
        read(*words)
    assert "secret" not in str(caught.value)


@contextmanager
def at_terminal() -> Iterator[int]:
    """Standard input, output and error are a terminal; its other end. No fixture: pytest changes these, too."""
    ours, theirs = pty.openpty()
    saved = [os.dup(fd) for fd in (0, 1, 2)]
    for fd in (0, 1, 2):
        os.dup2(theirs, fd)
    try:
        yield ours
    finally:
        for fd, old in enumerate(saved):
            os.dup2(old, fd)
            os.close(old)
        os.close(theirs)
        os.close(ours)


def answer(keyboard: int, *lines: str) -> threading.Thread:
    """Type a line each time a question has been asked."""

    def type_lines() -> None:
        for line in lines:
            while b": " not in os.read(keyboard, 4096):
                pass
            os.write(keyboard, f"{line}\n".encode())

    thread = threading.Thread(target=type_lines)
    thread.start()
    return thread


def test_secret_is_not_shown() -> None:
    with at_terminal() as keyboard:
        typing = answer(keyboard, "hidden")
        there = terminal.has_terminal()
        access = read("--creds", "user")
        typing.join()
        after_secret = os.read(keyboard, 4096)
        typing = answer(keyboard, "shown")
        line = terminal.ask_line("Name: ")  # echo is on again
        typing.join()
        after_line = os.read(keyboard, 4096)
    assert there
    assert access.credentials is not None
    assert access.credentials.password == "hidden"
    assert line == "shown"
    assert b"hidden" not in after_secret
    assert b"shown" in after_line


@pytest.mark.parametrize(
    ("answers", "chosen"), [(("2",), 1), (("0", "two", "1"), 0), (("3", "", "-1"), None)]
)
def test_choice(answers: tuple[str, ...], chosen: int | None) -> None:
    with at_terminal() as keyboard:
        typing = answer(keyboard, *answers)
        try:
            found: int | None = terminal.ask_choice("Which one", ["a.io/x", "b.io/x"])
        except InvalidArgument:
            found = None
        typing.join()
    assert found == chosen


def test_end_of_input() -> None:
    with at_terminal() as keyboard:
        os.write(keyboard, b"\x04")
        with pytest.raises(InvalidArgument, match="nothing was entered"):
            terminal.read_line()
