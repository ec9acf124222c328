"""Looking up logins: containers-auth.json(5), docker's config.json and .dockercfg, and the helpers that they name.

Nothing of what these files hold gets into a message but paths and the names of helpers.
"""

from __future__ import annotations

import base64
import binascii
import os

from usercontainerd.base.errors import HostError, InvalidFormat, RuntimeFailure, UsercontainerError
from usercontainerd.base.records import dataclass
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.oci.reference import DOCKER_HUB, HUB_HOSTS
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.configuration import AUTH_FILES
from usercontainerd.registry.credential_helpers import CredentialHelper, HelperMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_FILE = 1024 * 1024
HUB_KEY = "https://index.docker.io/v1/"  # Docker Hub's, in docker's own files
_HUB_NAMES = (DOCKER_HUB, *HUB_HOSTS)


@dataclass(frozen=True)
class AuthFile:
    """A file that may hold logins; ``legacy`` is the form of ~/.dockercfg, which has nothing but the ``auths``."""

    path: str
    legacy: bool = False


@dataclass(frozen=True)
class Login:
    """A login, and the file or helper that has it."""

    credentials: Credentials
    origin: str


def find_auth_files(
    runtime_root: str, home_config: str, home: str, environment: Mapping[str, str], chosen: str | None = None
) -> list[AuthFile]:
    """Return the files that may hold logins, strongest first (containers-auth.json(5)).

    A ``chosen`` one, or else that of REGISTRY_AUTH_FILE, is the only one.
    """
    chosen = chosen or environment.get("REGISTRY_AUTH_FILE")
    if chosen:
        return [AuthFile(chosen)]
    docker = environment.get("DOCKER_CONFIG") or f"{home}/.docker"
    return [
        AuthFile(f"{runtime_root}/containers/auth.json"),
        AuthFile(f"{home_config}/containers/auth.json"),
        AuthFile(f"{docker}/config.json"),
        AuthFile(f"{home}/.dockercfg", legacy=True),
    ]


def find_login(
    files: Iterable[AuthFile],
    key: str,
    environment: Mapping[str, str],
    helpers: Iterable[str] = (AUTH_FILES,),
) -> Login | None:
    """Return the login for ``key``, a registry or ``registry/path``, None if there is none.

    ``helpers`` are the ``credential-helpers`` of registries.conf, asked in turn; one that fails matters only if no
    other has the login. Raises ``InvalidFormat`` for a damaged file, ``HostError`` or ``RuntimeFailure`` for a helper.
    """
    failure: UsercontainerError | None = None
    registry = key.partition("/")[0]
    for name in helpers:
        try:
            if name == AUTH_FILES:
                login = next(filter(None, (_find_in_file(file, key, environment) for file in files)), None)
            else:
                login = _ask_helper(name, registry, environment)
        except (InvalidFormat, HostError, RuntimeFailure) as error:
            failure = failure or error
            continue
        if login is not None:
            return login
    if failure is not None:
        raise failure
    return None


def _ask_helper(name: str, server: str, environment: Mapping[str, str]) -> Login | None:
    helper = CredentialHelper(name, environment)
    credentials = helper.get(server)
    return None if credentials is None else Login(credentials, helper.program)


def read_auth_file(path: str) -> bytes | None:
    """Return the bytes of a file with logins, None if there is none. Raises ``InvalidFormat``."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise InvalidFormat(f"cannot be read: {os.strerror(error.errno or 0)}", where=path) from error
    return data


def _find_in_file(file: AuthFile, key: str, environment: Mapping[str, str]) -> Login | None:
    data = read_auth_file(file.path)
    if data is None or not data.strip():
        return None
    document = parse_auth_file(data, file.path)
    registry = key.partition("/")[0]
    if file.legacy:
        credentials = find_credentials(document, registry, namespaces=False)
        return None if credentials is None else Login(credentials, file.path)
    own = find_own_helper(document, registry)
    if own is not None:
        return _ask_helper(*own, environment)
    credentials = find_credentials(document.get("auths"), key)
    if credentials is not None:
        return Login(credentials, file.path)
    store = document.get("credsStore").text("")
    if store:
        try:
            return _ask_helper(store, name_server(registry), environment)
        except HelperMissing:
            # docker's setting, which may have outlived docker: no reason for a public image to fail.
            return None
    return None


def list_file_keys(file: AuthFile) -> list[str]:
    """Return the registries and ``registry/path``s that a file names; none of a damaged file."""
    try:
        data = read_auth_file(file.path)
        if data is None or not data.strip():
            return []
        document = parse_auth_file(data, file.path)
        auths = document if file.legacy else document.get("auths")
        names = [name for name, _ in auths.items()]
        if not file.legacy:
            names += [name for name, _ in document.get("credHelpers").items()]
    except InvalidFormat:
        return []
    return [normalize_key(name, legacy=file.legacy) for name in names]


def parse_auth_file(data: bytes, path: str) -> JsonValue:
    """Parse the text of a file with logins. Raises ``InvalidFormat``, without any of it."""
    try:
        document = parse_json(data, "auth.json", limit=MAX_FILE, source=path)
    except InvalidFormat as error:
        # What the decoder found wrong is a place, or a key's name; a value is never in it.
        raise InvalidFormat(error.what, where=path, hint="mend it, or remove it and log in again") from None
    document.items()  # an object
    return document


def find_own_helper(document: JsonValue, registry: str) -> tuple[str, str] | None:
    """Return the helper that ``credHelpers`` names for a registry, and what it calls that."""
    for name, value in document.get("credHelpers").items():
        if name == registry or (registry in _HUB_NAMES and normalize_key(name) == DOCKER_HUB):
            return value.text(""), name
    return None


def name_server(registry: str) -> str:
    """What docker calls a registry when it talks to its ``credsStore``."""
    return HUB_KEY if registry in _HUB_NAMES else registry


def find_credentials(auths: JsonValue, key: str, *, namespaces: bool = True) -> Credentials | None:
    """Return the credentials of the most specific entry for ``key`` among ``auths``."""
    entries = dict(auths.items())
    for name in list_keys(key) if namespaces else (key,):
        found = _decode(entries.get(name))
        if found is not None:
            return found
    registry = normalize_key(key.partition("/")[0])
    for name, value in entries.items():
        if normalize_key(name, legacy=not namespaces) == registry:
            found = _decode(value)
            if found is not None:
                return found
    return None


def list_keys(key: str) -> Iterator[str]:
    """Yield the keys under which a login for ``key`` may be, most specific first."""
    while key:
        yield key
        key = key.rpartition("/")[0]


def normalize_key(key: str, *, legacy: bool = False) -> str:
    """Return the registry that a key means; docker wrote URLs, and has several names for its own."""
    host = key.removeprefix("http://").removeprefix("https://")
    if host != key or legacy:
        host = host.partition("/")[0]
    return DOCKER_HUB if host in _HUB_NAMES else host


def _decode(entry: JsonValue | None) -> Credentials | None:
    """None for an empty entry: docker leaves one where a helper has the login."""
    if entry is None or entry.is_null:
        return None
    token = entry.get("identitytoken").text("")
    encoded = entry.get("auth").text("")
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidFormat("an entry of auths is damaged", where=entry.source, hint="log in again") from None
    if not colon and not token:
        return None
    return Credentials(user, password.rstrip("\0"), token)
