"""Changing files with logins: nothing is lost, nobody else can read it, and no surprise is followed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import Busy, HostError, InvalidFormat, StoreError
from usercontainerd.registry import authfile_changes
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.authfile_changes import (
    AuthFileEditor,
    remove_all_logins,
    remove_login,
    store_login,
)
from usercontainerd.registry.authfiles import AuthFile, find_login

LOGIN = Credentials("user", "pass: wörd")
ENTRY = {"auth": base64.b64encode("user:pass: wörd".encode()).decode()}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "containers" / "auth.json"


@pytest.fixture
def editor(path: Path) -> AuthFileEditor:
    return AuthFileEditor(str(path), {})


def write(path: Path, document: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


def test_new_file(path: Path, editor: AuthFileEditor) -> None:
    assert editor.store("quay.io/team", LOGIN) == str(path)
    assert read(path) == {"auths": {"quay.io/team": ENTRY}}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["auth.json"]
    found = find_login([AuthFile(str(path))], "quay.io/team/x", {})
    assert found is not None
    assert found.credentials.password == LOGIN.password


def test_what_is_not_known_here_stays(path: Path, editor: AuthFileEditor) -> None:
    document = {
        "HttpHeaders": {"X": "y"},
        "auths": {
            "a.io": {"auth": "b2xkOm9sZA==", "identitytoken": "old", "email": "me@x"},
            "b.io": {"new": 1.5},
        },
        "psFormat": "table — ü",
    }
    write(path, document)
    path.chmod(0o644)
    editor.store("a.io", LOGIN)
    document["auths"]["a.io"] = {**ENTRY, "email": "me@x"}  # type: ignore[index]
    assert read(path) == document
    assert list(read(path)) == list(document)
    assert path.stat().st_mode & 0o777 == 0o600
    assert editor.remove("a.io")
    assert read(path)["auths"] == {"b.io": {"new": 1.5}}


@pytest.mark.parametrize(
    ("name", "key", "gone"),
    [
        ("a.io", "a.io", True),
        ("https://a.io/v1/", "a.io", True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("a.io/team", "a.io/team", True),
        ("a.io/team", "a.io", False),
        ("a.io", "a.io/team", False),
    ],
)
def test_removal(path: Path, editor: AuthFileEditor, name: str, key: str, gone: bool) -> None:
    write(path, {"auths": {name: ENTRY, "other.io": ENTRY}})
    assert editor.remove(key) is gone
    assert (name in read(path)["auths"]) is not gone
    assert "other.io" in read(path)["auths"]


def test_removal_where_there_is_nothing(path: Path, editor: AuthFileEditor) -> None:
    assert not editor.remove("a.io")
    assert not path.exists()


def test_dockers_form(path: Path) -> None:
    editor = AuthFileEditor(str(path), {}, docker=True)
    editor.store("docker.io", LOGIN)
    editor.store("a.io", LOGIN)
    assert read(path) == {"auths": {"https://index.docker.io/v1/": ENTRY, "a.io": ENTRY}}
    with pytest.raises(StoreError, match=r"docker's own file cannot keep a login for 'a\.io/team'"):
        editor.store("a.io/team", LOGIN)
    assert editor.remove("docker.io")
    assert list(read(path)["auths"]) == ["a.io"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "5",
        '{"auths": []}',
        '{"auths": {}, "auths": {}}',
        '{"credHelpers": {"a.io": 5}}',
        '{"credsStore": []}',
        "\N{SNOWMAN}",
    ],
)
def test_damaged_file_stays(path: Path, editor: AuthFileEditor, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    for change in (lambda: editor.store("a.io", LOGIN), lambda: editor.remove("a.io"), editor.remove_all):
        with pytest.raises(InvalidFormat) as caught:
            change()
        assert caught.value.where == str(path)
    assert path.read_text() == text


def test_own_symlink_is_followed_and_stays(tmp_path: Path, path: Path, editor: AuthFileEditor) -> None:
    real = tmp_path / "dotfiles" / "auth.json"
    write(real, {"auths": {}, "kept": True})
    path.parent.mkdir()
    path.symlink_to("../dotfiles/auth.json")
    editor.store("a.io", LOGIN)
    assert path.is_symlink()
    assert read(real) == {"auths": {"a.io": ENTRY}, "kept": True}


def test_what_is_not_a_file_of_ones_own_is_refused(
    path: Path, editor: AuthFileEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    path.symlink_to("auth.json")
    with pytest.raises(StoreError, match="too many symlinks"):
        editor.store("a.io", LOGIN)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"/dev/full: (belongs to another user|is not a regular file)"):
        editor.store("a.io", LOGIN)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="is not a regular file"):
        editor.store("a.io", LOGIN)
    path.unlink()
    write(path, {})
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(StoreError, match="belongs to another user"):
        editor.store("a.io", LOGIN)


def test_writers_wait_for_each_other(path: Path) -> None:
    path.parent.mkdir()

    def add(name: str) -> None:
        AuthFileEditor(str(path), {}).store(name, LOGIN)

    names = [f"r{number}.io" for number in range(16)]
    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(path)["auths"]) == sorted(names)


def test_writer_that_never_ends(path: Path, editor: AuthFileEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authfile_changes, "WAIT", 0.05)
    path.parent.mkdir()
    fd = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Busy):
        editor.store("a.io", LOGIN)
    os.close(fd)


# Helpers

FAKE = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$@" >> arguments
case "$1" in
store) cat > stored; tr ',{}"' '\\n' < stored | sed -n '/ServerURL/,+0p' >> servers ;;
erase) read -r server
  [ -e stored ] || { echo "credentials not found in native keychain"; exit 1; }
  echo "$server" >> erased; rm stored ;;
list) printf '{"one.io":"u","two.io":"u"}' ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A directory on the PATH with the helper ``fake``, which notes what it is told."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "docker-credential-fake"
    program.write_text(FAKE)
    program.chmod(0o755)
    return directory


def environment(fake: Path) -> dict[str, str]:
    return {"PATH": f"{fake}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("document", "key", "server"),
    [
        ({"credHelpers": {"a.io": "fake"}}, "a.io", "a.io"),
        ({"credsStore": "fake"}, "a.io", "a.io"),
        ({"credsStore": "fake"}, "docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_helper_keeps_it_instead(fake: Path, path: Path, document: object, key: str, server: str) -> None:
    write(path, document)
    editor = AuthFileEditor(str(path), environment(fake))
    assert editor.store(key, LOGIN) == "docker-credential-fake"
    assert read(fake / "stored") == {"ServerURL": server, "Username": "user", "Secret": LOGIN.password}
    assert read(path) == document
    assert editor.remove(key)
    assert not editor.remove(key)
    assert (fake / "erased").read_text() == f"{server}\n"
    assert (fake / "arguments").read_text() == "store\nerase\nerase\n"
    with pytest.raises(StoreError, match="docker-credential-fake cannot keep a login for"):
        editor.store(f"{key}/team", LOGIN)


def test_helpers_of_registries_conf(fake: Path, path: Path) -> None:
    editor = AuthFileEditor(str(path), environment(fake))
    where = environment(fake)
    assert (
        store_login(editor, "a.io", LOGIN, where, ("fake", "containers-auth.json"))
        == "docker-credential-fake"
    )
    assert not path.exists()
    # A helper cannot take a path, and one that is missing nothing: the next place gets it.
    assert store_login(editor, "a.io/x", LOGIN, where, ("fake", "containers-auth.json")) == str(path)
    assert store_login(editor, "b.io", LOGIN, where, ("missing", "containers-auth.json")) == str(path)
    with pytest.raises(HostError, match="docker-credential-missing"):
        store_login(editor, "b.io", LOGIN, where, ("missing",))
    assert remove_login(editor, "a.io", where, ("missing", "fake", "containers-auth.json"))
    assert not remove_login(editor, "a.io", where, ("fake", "containers-auth.json"))


def test_all_are_removed(fake: Path, path: Path) -> None:
    write(path, {"auths": {"a.io": ENTRY}, "credHelpers": {"c.io": "fake"}, "kept": 1})
    editor = AuthFileEditor(str(path), environment(fake))
    (fake / "stored").touch()
    remove_all_logins(editor, environment(fake), ("fake", "missing", "containers-auth.json"))
    assert read(path) == {"auths": {}, "credHelpers": {}, "kept": 1}
    assert (fake / "arguments").read_text() == "list\nerase\nerase\nerase\n"
