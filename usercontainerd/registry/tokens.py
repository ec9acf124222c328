"""Who we are to one registry: challenges answered, tokens fetched, kept for each scope and renewed.

Follows the distribution project's token flow (docs/spec/auth: token.md, oauth.md, scope.md) and RFC 7617 (Basic).
Several threads share it: one fetches a token, the others wait for that and take it.
"""

from __future__ import annotations

import threading
import time
from enum import StrEnum
from urllib.parse import urlencode

from usercontainerd.base.errors import PullDenied, RegistryError
from usercontainerd.base.typedjson import parse_json
from usercontainerd.registry.origins import check_realm, may_send_password

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from usercontainerd.base.typedjson import JsonValue
    from usercontainerd.registry.authentication import Challenge, Credentials
    from usercontainerd.registry.transport import Response

    class Fetch(Protocol):
        """Sends a request to a token service; ``form`` makes it a POST."""

        def __call__(self, url: str, *, authorization: str | None, form: bytes | None) -> Response:
            """Return the answer, whatever its status."""


MAX_TOKEN = 1024 * 1024
_LIFETIME = 60  # seconds, where the service says nothing
_LEAST = 5.0  # seconds for which a token is taken to count, else it could not be used at all
_CLIENT = "usercontainerd"


class Outcome(StrEnum):
    """What an answer to a challenge has brought."""

    NOTHING = "nothing"  # there is nothing to answer with
    RENEWED = "renewed"  # something else to send; if that is refused, too, access is denied
    CHANGED = "changed"  # another thread was faster


class Token:
    """An Authorization header, and until when (by the monotonic clock) it counts; None: for good."""

    __slots__ = ("end", "header")

    def __init__(self, header: str, end: float | None = None) -> None:
        self.header = header
        self.end = end


class Tokens:
    """What to send as Authorization for each scope.

    ``base`` is the registry's URL without a path, ``fetch`` asks the token service, ``read_error`` gives the words
    of an answer that is an error.
    """

    def __init__(
        self,
        base: str,
        find_credentials: Callable[[], Credentials | None],
        fetch: Fetch,
        read_error: Callable[[Response], str],
    ) -> None:
        self._base = base
        self._find_credentials = find_credentials
        self._fetch = fetch
        self._read_error = read_error
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], Token] = {}
        self._refresh_token = ""
        self._credentials: Credentials | None = None
        self._looked_up = False

    def find(self, scope: tuple[str, ...]) -> str | None:
        """Return the header for ``scope``, with a fresh token if the last has run out; None before any challenge."""
        with self._lock:
            token = self._tokens.get(scope)
            if token is not None and (token.end is None or time.monotonic() < token.end):
                return token.header
            if self._challenge is None:
                return None
            self._renew(self._challenge, scope)
            return self._tokens[scope].header

    def answer(self, challenges: list[Challenge], scope: tuple[str, ...], used: str | None) -> Outcome:
        """Take the challenges of a 401 that came although (or since) ``used`` was sent."""
        with self._lock:
            token = self._tokens.get(scope)
            if token is not None and token.header != used:
                return Outcome.CHANGED
            self._tokens.pop(scope, None)
            credentials = self._look_up()
            for challenge in challenges:
                if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                    self._renew(challenge, scope)
                    self._challenge = challenge
                    return Outcome.RENEWED
                if challenge.scheme == "basic" and credentials is not None and credentials.user:
                    self._tokens[scope] = Token(credentials.basic)
                    return Outcome.NOTHING if credentials.basic == used else Outcome.RENEWED
            return Outcome.NOTHING

    @property
    def has_credentials(self) -> bool:
        """Tell whether there are any for this registry."""
        with self._lock:
            return self._look_up() is not None

    def _look_up(self) -> Credentials | None:
        if not self._looked_up:
            self._credentials = self._find_credentials()
            self._looked_up = True
            if self._credentials is not None:
                self._refresh_token = self._credentials.identity_token
        return self._credentials

    def _renew(self, challenge: Challenge, scope: tuple[str, ...]) -> None:
        realm = challenge.parameters["realm"]
        check_realm(realm, self._base)
        credentials = self._look_up()
        withheld = credentials is not None and not may_send_password(realm, self._base)
        if withheld:
            credentials = None
        query = [("service", challenge.parameters.get("service", ""))]
        query = [pair for pair in query if pair[1]] + [("scope", each) for each in scope]
        started = time.monotonic()
        if credentials is not None and self._refresh_token:
            response = self._fetch(realm, authorization=None, form=self._build_form(query))
        else:
            separator = "&" if "?" in realm else "?"
            basic = credentials.basic if credentials is not None and credentials.user else None
            response = self._fetch(f"{realm}{separator}{urlencode(query)}", authorization=basic, form=None)
        if response.status != 200:
            raise self._explain(response, realm, withheld)
        document = parse_json(response.read_all(MAX_TOKEN), "token", limit=MAX_TOKEN, source=realm)
        self._tokens[scope] = self._read_token(document, realm, started)

    def _build_form(self, query: list[tuple[str, str]]) -> bytes:
        service = [pair for pair in query if pair[0] == "service"]
        scopes = " ".join(value for key, value in query if key == "scope")
        form = [*service, ("scope", scopes), ("grant_type", "refresh_token"), ("client_id", _CLIENT)]
        return urlencode([*form, ("refresh_token", self._refresh_token)]).encode()

    def _read_token(self, document: JsonValue, realm: str, started: float) -> Token:
        token = document.get("token").text("") or document.get("access_token").text("")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise RegistryError("the token service gave no usable token", where=realm)
        lifetime = document.get("expires_in").integer(_LIFETIME)
        if self._refresh_token:
            # Services may give another one with each use.
            self._refresh_token = document.get("refresh_token").text("") or self._refresh_token
        # By our own clock from before it was asked for: the service's may be wrong.
        return Token(f"Bearer {token}", started + max(lifetime * 0.9, _LEAST))

    def _explain(self, response: Response, realm: str, withheld: bool) -> RegistryError | PullDenied:
        detail = self._read_error(response)
        if response.status in (401, 403):
            hint = "log in again"
            if withheld:
                hint = "the login was not sent there: it is for another domain"
            elif self._credentials is None:
                hint = "log in first"
            return PullDenied(f"the login was refused{detail}", where=realm, hint=hint)
        return RegistryError(f"the token service answers with status {response.status}{detail}", where=realm)
