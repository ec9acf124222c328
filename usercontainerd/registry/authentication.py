"""Who we are to a registry.

Auth.json(5) lookups and the challenges of RFC 9110 and the distribution token flow.
"""

from __future__ import annotations

import base64
import binascii
import os
import re

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.typedjson import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAX_FILE = 1024 * 1024
_CHALLENGE = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|\Z|(?=,))")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


class Credentials:
    """A user name and password, or an identity token (an OAuth2 refresh token). Never shown."""

    __slots__ = ("identity_token", "password", "user")

    def __init__(self, user: str, password: str, identity_token: str = "") -> None:
        self.user = user
        self.password = password
        self.identity_token = identity_token

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def basic(self) -> str:
        """Value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


class Challenge:
    """One challenge of a WWW-Authenticate header; ``scheme`` in lower case."""

    __slots__ = ("parameters", "scheme")

    def __init__(self, scheme: str, parameters: dict[str, str]) -> None:
        self.scheme = scheme
        self.parameters = parameters


def parse_challenges(header: str) -> list[Challenge]:
    """Parse a WWW-Authenticate header (RFC 9110, 11.6.1); what cannot be read ends the list."""
    challenges: list[Challenge] = []
    at = 0
    header = header[:8192]
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter is not None and challenges:
            value = parameter[2] if parameter[2] is not None else parameter[3]
            challenges[-1].parameters.setdefault(parameter[1].lower(), re.sub(r"\\(.)", r"\1", value))
            at = parameter.end()
            continue
        scheme = _CHALLENGE.match(header, at)
        if scheme is None:
            break
        challenges.append(Challenge(scheme[1].lower(), {}))
        at = scheme.end()
    return challenges


def credential_files(
    runtime_root: str, home_config: str, home: str, environment: Mapping[str, str]
) -> list[str]:
    """Return the files that may hold credentials, strongest first (containers-auth.json(5))."""
    override = environment.get("REGISTRY_AUTH_FILE")
    if override:
        return [override]
    docker = environment.get("DOCKER_CONFIG") or f"{home}/.docker"
    return [
        f"{runtime_root}/containers/auth.json",
        f"{home_config}/containers/auth.json",
        f"{docker}/config.json",
    ]


def find_credentials(files: Iterable[str], registry: str, repository: str) -> Credentials | None:
    """Return the credentials for a repository: the most specific key of the first file that has one.

    Raises ``InvalidFormat`` for a damaged file, without showing any of it.
    """
    for path in files:
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except OSError as error:
            raise InvalidFormat(f"cannot be read: {os.strerror(error.errno or 0)}", where=path) from error
        if data.strip():
            found = parse_credentials(data, path, registry, repository)
            if found is not None:
                return found
    return None


def parse_credentials(data: bytes, path: str, registry: str, repository: str) -> Credentials | None:
    """Look ``registry/repository`` up in the text of an auth.json."""
    document = parse_json(data, "auth.json", limit=_MAX_FILE, source=path)
    entries = {_normalize_key(key): value for key, value in reversed(list(document.get("auths").items()))}
    full = f"{registry}/{repository}"
    while full:
        value = entries.get(full)
        if value is not None and not value.is_null:
            token = value.get("identitytoken").text("")
            encoded = value.get("auth").text("")
            if encoded or token:
                return _decode(encoded, token, path)
        full = full.rpartition("/")[0]
    return None


def _normalize_key(key: str) -> str:
    """Docker writes URLs: ``https://index.docker.io/v1/``."""
    if "://" in key:
        key = key.partition("://")[2].partition("/")[0]
    key = key.rstrip("/")
    return "docker.io" if key in ("index.docker.io", "index.docker.io/v1", "registry-1.docker.io") else key


def _decode(encoded: str, token: str, path: str) -> Credentials:
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidFormat("an entry of auths is damaged", where=path, hint="log in again") from None
    return Credentials(user, password.rstrip("\0"), token)
