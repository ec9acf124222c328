"""Changing files with logins: atomic, one writer at a time, readable by nobody else, and nothing in them is lost.

A damaged file is left alone. A symlink is followed where it is the user's own and leads to a file of the user's own, as
with files kept in a repository; another's never. Writers lock the directory (flock(2)): no lock files are left behind.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager

from usercontainerd.base.errors import Busy, InvalidFormat, StoreError, UsercontainerError
from usercontainerd.kernel.atomicfile import explain_write_error, write_atomic
from usercontainerd.oci.reference import DOCKER_HUB
from usercontainerd.registry.authfiles import (
    HUB_KEY,
    MAX_FILE,
    find_own_helper,
    name_server,
    normalize_key,
    parse_auth_file,
)
from usercontainerd.registry.configuration import AUTH_FILES
from usercontainerd.registry.credential_helpers import CredentialHelper, HelperMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from usercontainerd.registry.authentication import Credentials

WAIT = 10.0  # seconds for another writer
_SECRETS = ("auth", "identitytoken", "registrytoken", "username", "password")


class AuthFileEditor:
    """One file with logins; with ``docker`` what is written is for docker to read: its key for Docker Hub, no paths.

    Raises ``StoreError``, ``InvalidFormat`` for a damaged file, ``Busy``, and what helpers raise.
    """

    def __init__(self, path: str, environment: Mapping[str, str], *, docker: bool = False) -> None:
        self.path = path
        self._environment = environment
        self._docker = docker

    def store(self, key: str, credentials: Credentials) -> str:
        """Keep a login for ``key``, a registry or ``registry/path``; return the file or helper that has it now."""
        with self._edit() as document:
            helper = self._find_helper(document, key)
            if helper is not None:
                _refuse_namespace(key, helper[0].program)
                helper[0].store(helper[1], credentials)
                return helper[0].program
            auths = document.setdefault("auths", {})
            name = self._name(key)
            entry = auths.get(name) if isinstance(auths.get(name), dict) else {}
            kept = {word: value for word, value in entry.items() if word not in _SECRETS}
            text = f"{credentials.user}:{credentials.password}".encode()
            auths[name] = {"auth": base64.b64encode(text).decode("ascii"), **kept}
        return self.path

    def remove(self, key: str) -> bool:
        """Forget the login for ``key``; False if there was none."""
        removed = False
        with self._edit() as document:
            helper = self._find_helper(document, key)
            if helper is not None and "/" not in key:
                removed = helper[0].erase(helper[1])
            auths = document.get("auths", {})
            for name in [name for name in auths if _means(name, key)]:
                del auths[name]
                removed = True
        return removed

    def remove_all(self) -> None:
        """Forget all logins, those in helpers that the file names, too."""
        with self._edit() as document:
            for server, name in document.get("credHelpers", {}).items():
                CredentialHelper(name, self._environment).erase(server)
            if "credHelpers" in document:
                document["credHelpers"] = {}
            if document.get("credsStore"):
                helper = CredentialHelper(document["credsStore"], self._environment)
                for server in helper.list():
                    helper.erase(server)
            document["auths"] = {}

    def _name(self, key: str) -> str:
        if not self._docker:
            return key
        _refuse_namespace(key, "docker's own file")
        return HUB_KEY if normalize_key(key) == DOCKER_HUB else key

    def _find_helper(self, document: dict[str, Any], key: str) -> tuple[CredentialHelper, str] | None:
        value = parse_auth_file(json.dumps(document).encode(), self.path)
        registry = key.partition("/")[0]
        own = find_own_helper(value, registry)
        if own is None and (store := value.get("credsStore").text("")):
            own = store, name_server(registry)
        return None if own is None else (CredentialHelper(own[0], self._environment), own[1])

    # The file

    @contextmanager
    def _edit(self) -> Iterator[dict[str, Any]]:
        """Give the document, and write it afterwards if it has changed."""
        path = find_target(self.path)
        directory = os.path.dirname(path)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise explain_write_error(error, path) from error
        with _lock(directory):
            data = _read(path)
            document = _check_form(parse_auth_file(data, path).raw, path) if data.strip() else {}
            before = json.dumps(document)
            yield document
            if json.dumps(document) != before:
                write_atomic(path, json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n")


def find_target(path: str) -> str:
    """Return the file that is meant, absolute, no symlink. Raises ``StoreError`` for one that is not the user's."""
    path = os.path.abspath(path)
    for _ in range(8):
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return path
        except OSError as error:
            raise explain_write_error(error, path) from error
        if status.st_uid != os.getuid():
            raise StoreError("belongs to another user", where=path, hint="logins are not written there")
        if stat.S_ISREG(status.st_mode):
            return path
        if not stat.S_ISLNK(status.st_mode):
            raise StoreError("is not a regular file", where=path)
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    raise StoreError("too many symlinks", where=path)


@contextmanager
def _lock(directory: str) -> Iterator[None]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explain_write_error(error, directory) from error
    try:
        end = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Busy("another process is changing a file in it", where=directory) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot be read: {os.strerror(error.errno or 0)}", where=path) from error
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_FILE + 1)


def _check_form(document: object, path: str) -> dict[str, Any]:
    """Return the document. Raises ``InvalidFormat`` if it is not of the form that is known here."""
    if not isinstance(document, dict):
        raise InvalidFormat("auth.json: expected an object", where=path)
    for word in ("auths", "credHelpers"):
        if document.get(word) is None:
            document.pop(word, None)
        elif not isinstance(document[word], dict):
            raise InvalidFormat(f"auth.json.{word}: expected an object", where=path)
    names = [document.get("credsStore", ""), *document.get("credHelpers", {}).values()]
    if not all(isinstance(name, str) for name in names):
        raise InvalidFormat("auth.json: the name of a credential helper is not a string", where=path)
    return document


def _means(name: str, key: str) -> bool:
    return name == key or ("/" not in key and normalize_key(name) == normalize_key(key))


def _refuse_namespace(key: str, what: str) -> None:
    if "/" in key:
        raise StoreError(f"{what} cannot keep a login for {key!r}", hint="log in to the registry as a whole")


# With the credential-helpers of registries.conf


def store_login(
    editor: AuthFileEditor,
    key: str,
    credentials: Credentials,
    environment: Mapping[str, str],
    helpers: Sequence[str] = (AUTH_FILES,),
) -> str:
    """Keep a login in the first place that takes it; return what that is. Raises what the first one has raised."""
    failure: UsercontainerError | None = None
    for name in helpers:
        try:
            if name == AUTH_FILES:
                return editor.store(key, credentials)
            helper = CredentialHelper(name, environment)
            _refuse_namespace(key, helper.program)
            helper.store(key, credentials)
            return helper.program
        except UsercontainerError as error:  # whatever it is, the next place may take it
            failure = failure or error
    raise failure or StoreError("registries.conf names no place for logins: credential-helpers = []")


def remove_login(
    editor: AuthFileEditor, key: str, environment: Mapping[str, str], helpers: Sequence[str] = (AUTH_FILES,)
) -> bool:
    """Forget the login for ``key`` wherever it is written to; False if there was none."""
    removed = False
    for name in helpers:
        if name == AUTH_FILES:
            removed |= editor.remove(key)
        elif "/" not in key:
            try:
                removed |= CredentialHelper(name, environment).erase(key)
            except HelperMissing:
                continue
    return removed


def remove_all_logins(
    editor: AuthFileEditor, environment: Mapping[str, str], helpers: Sequence[str] = (AUTH_FILES,)
) -> None:
    """Forget all logins wherever they are written to."""
    for name in helpers:
        if name == AUTH_FILES:
            editor.remove_all()
            continue
        helper = CredentialHelper(name, environment)
        try:
            for server in helper.list():
                helper.erase(server)
        except HelperMissing:
            continue
