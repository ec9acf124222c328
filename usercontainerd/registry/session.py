"""Requests to one registry: its address found out, challenges answered, redirects followed, failures tried again."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

from usercontainerd.base.errors import InvalidFormat, PullDenied, RegistryError
from usercontainerd.base.typedjson import parse_json
from usercontainerd.registry.authentication import parse_challenges
from usercontainerd.registry.origins import find_origin, resolve_target
from usercontainerd.registry.patience import RETRIED, parse_retry_after
from usercontainerd.registry.tokens import Outcome, Tokens
from usercontainerd.registry.transport import ConnectionFailed, Response, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from usercontainerd.registry.authentication import Credentials
    from usercontainerd.registry.configuration import Endpoint

MAX_REDIRECTS = 5
MAX_ERROR = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_SAFE = ("GET", "HEAD")
_AUTHENTICATIONS = 3  # of one request: another thread's token, one that has just run out, one of our own


class Session:
    """Requests on behalf of the repository of ``endpoint``; for any number of threads.

    Raises ``RegistryError``, ``PullDenied``, ``Cancelled``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        find_credentials: Callable[[], Credentials | None] = lambda: None,
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._find_credentials = find_credentials
        self._lock = threading.Lock()
        self._base: str | None = None
        self._tokens: Tokens | None = None
        self._reached = False

    @property
    def repository(self) -> str:
        """The full name of the repository, for messages."""
        return self.endpoint.reference.name

    def close(self) -> None:
        """Close all connections; requests of other threads end with ``Cancelled``."""
        self._transport.close()

    def pause(self, attempt: int, retry_after: float | None = None) -> bool:
        """Wait after the failed ``attempt`` (from 0); False, at once, if it was the last."""
        delay = self._transport.patience.plan_delay(attempt, retry_after)
        if delay is None:
            return False
        self._transport.wait(delay)
        return True

    def build_scope(self, actions: str = "pull", repository: str | None = None) -> str:
        """The scope of a token for ``actions`` (with commas) on a repository, this one by default."""
        return f"repository:{repository or self.endpoint.reference.repository}:{actions}"

    def build_url(self, path: str) -> str:
        """The URL of ``path`` below this repository."""
        return f"{self.find_base()}/v2/{self.endpoint.reference.repository}/{path}"

    # Requests

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, *, scope: tuple[str, ...] | None = None
    ) -> Response:
        """GET ``path`` below the repository."""
        return self.request("GET", self.build_url(path), headers, scope=scope)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        scope: tuple[str, ...] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        retry: bool | None = None,
        patient: bool = False,
    ) -> Response:
        """Send a request to the registry and return the answer, whatever its status.

        ``scope`` is what a token is to allow, pulling by default, nothing if empty. What can be sent again without
        harm (``retry``; by default what only reads) is tried again after failures that may pass. ``patient`` is for
        what takes a registry long to do.
        """
        again = method in _SAFE if retry is None else retry
        scope = (self.build_scope(),) if scope is None else scope
        attempt = 0
        while True:
            retry_after = None
            try:
                response = self._authenticate(method, url, headers or {}, scope, body, patient=patient)
                self._reached = True
                if not again or response.status not in RETRIED:
                    return response
                retry_after = parse_retry_after(response.header("Retry-After"), time.time())
                if not self._may_wait(attempt, retry_after):
                    return response
                response.close()
            except ConnectionFailed as error:
                # Nobody there at the first attempt: the name or the port is wrong, more likely than not.
                hopeless = error.tls or (error.absent and not self._reached)
                if not again or hopeless or not self._may_wait(attempt, None):
                    raise
            self.pause(attempt, retry_after)
            attempt += 1

    def _may_wait(self, attempt: int, retry_after: float | None) -> bool:
        return self._transport.patience.plan_delay(attempt, retry_after) is not None

    def _authenticate(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        scope: tuple[str, ...],
        body: bytes | Iterable[bytes] | None,
        *,
        patient: bool,
    ) -> Response:
        own = find_origin(url) == find_origin(self.find_base())
        tokens = self._find_tokens()
        renewed = False
        for _ in range(_AUTHENTICATIONS):
            authorization = tokens.find(scope) if own else None
            response = self.follow(method, url, headers, authorization, body, patient=patient)
            if response.status != 401 or not own or find_origin(response.url) != find_origin(url):
                return response
            challenges = parse_challenges(response.header("WWW-Authenticate"))
            detail = self.read_error(response)
            outcome = Outcome.NOTHING if renewed else tokens.answer(challenges, scope, authorization)
            if outcome is Outcome.NOTHING:
                break
            renewed = outcome is Outcome.RENEWED
        hint = "the repository may not exist, or your login may not reach it"
        if not tokens.has_credentials:
            hint = "the repository may not exist, or need a login: usercontainer login"
        raise PullDenied(f"the registry refuses access{detail}", where=self.repository, hint=hint)

    def _find_tokens(self) -> Tokens:
        with self._lock:
            if self._tokens is None:
                self._tokens = Tokens(
                    self._find_base(), self._find_credentials, self._ask_token_service, self.read_error
                )
            return self._tokens

    def _ask_token_service(self, url: str, *, authorization: str | None, form: bytes | None) -> Response:
        headers = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        attempt = 0
        while True:
            retry_after = None
            try:
                response = self.follow("GET" if form is None else "POST", url, headers, authorization, form)
                retry_after = parse_retry_after(response.header("Retry-After"), time.time())
                if response.status not in RETRIED or not self._may_wait(attempt, retry_after):
                    return response
                response.close()
            except ConnectionFailed as error:
                if error.tls or error.absent or not self._may_wait(attempt, None):
                    raise
            self.pause(attempt, retry_after)
            attempt += 1

    def follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        body: bytes | Iterable[bytes] | None = None,
        *,
        patient: bool = False,
    ) -> Response:
        """Send one request and follow where reading ones are redirected to, as far as ``origins`` allows."""
        first = find_origin(url)
        registry = find_origin(self.find_base())[1]
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            origin = find_origin(url)
            # Credentials are for whom they were meant for, not for where that one redirects to.
            if authorization is not None and origin == first:
                sent["Authorization"] = authorization
            # A registry that may be insecure need not prove who it is; others who get something from us must.
            gives = authorization is not None or body is not None
            verify = not self.endpoint.insecure or (gives and origin[1] != registry)
            response = self._transport.request(method, url, sent, verify=verify, body=body, patient=patient)
            if response.status not in _REDIRECTS:
                return response
            location = response.header("Location")
            response.close()
            if method not in _SAFE:
                raise RegistryError("the registry redirects what only it may get", where=url)
            if not location:
                raise RegistryError("a redirect leads nowhere", where=url)
            url = resolve_target(url, location, registry=registry)
        raise RegistryError(f"more than {MAX_REDIRECTS} redirects", where=url)

    def find_base(self) -> str:
        """Scheme and host. An insecure registry may speak TLS all the same; plain HTTP is for no other."""
        with self._lock:
            return self._find_base()

    def _find_base(self) -> str:
        if self._base is None:
            secure = f"https://{self.endpoint.host}"
            if self.endpoint.insecure:
                try:
                    self._transport.request("GET", f"{secure}/v2/", {}, verify=False).close()
                except ConnectionFailed as error:
                    base = f"http://{self.endpoint.host}"
                    if not error.tls:
                        self._transport.request("GET", f"{base}/v2/", {}).close()
                    self._base = base
                    return base
            self._base = secure
        return self._base

    # Answers

    def expect(self, response: Response, statuses: tuple[int, ...]) -> None:
        """Raise what the status means unless it is one of ``statuses``."""
        if response.status in statuses:
            return
        detail = self.read_error(response)
        if response.status in (401, 403):
            raise PullDenied(f"the registry refuses access{detail}", where=self.repository)
        hint = None
        if response.status == 429:
            wait = parse_retry_after(response.header("Retry-After"), time.time())
            hint = "you have asked too often; log in or wait" + (f" {wait:.0f} s" if wait is not None else "")
        elsewhere = urlsplit(response.url).netloc
        by = "" if elsewhere == urlsplit(self.find_base()).netloc else f" (by {elsewhere})"
        raise RegistryError(
            f"the registry answers with status {response.status}{by}{detail}",
            where=self.repository,
            hint=hint,
        )

    @staticmethod
    def read_error(response: Response) -> str:
        """Return the registry's own words from an error's body, for the end of a message; closes the answer."""
        try:
            document = parse_json(response.read_all(MAX_ERROR), "error", limit=MAX_ERROR)
            words = [error.get("message").text("") for error in document.get("errors").elements(limit=100)]
        except (RegistryError, InvalidFormat):
            return ""
        finally:
            response.close()
        text = "; ".join(word for word in words if word)[:300]
        return f": {text}" if text else ""
