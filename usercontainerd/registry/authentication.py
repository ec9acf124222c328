"""Who we are to a registry: what a login is, and the challenges of RFC 9110."""

from __future__ import annotations

import base64
import re

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
