"""HTTP for registries on ``requests``, told to do nothing by itself: no redirects, no .netrc, no environment.

``requests`` takes 160 ms to import. Whoever can answer without a registry must not import this module.

One transport serves several threads at once. ``requests.Session`` is not promised to be safe for that; what of it
several threads touch here is: its pools of connections (urllib3 promises it for these), its settings and adapters
(never changed once it was made) and its cookies, which are never kept.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import ssl
import threading
from urllib.parse import urlsplit

import requests
import urllib3

from usercontainerd import __version__
from usercontainerd.base.errors import Cancelled, RegistryError
from usercontainerd.base.records import replace
from usercontainerd.registry.certificates import Certificates, find_system_authorities
from usercontainerd.registry.connections import Guard, GuardedAdapter, Limits, TooMuch, TooSlow
from usercontainerd.registry.patience import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONNECTIONS = 16  # to one host, kept for the next request
WORKING = 600.0  # seconds for which a registry may be silent while it works on what it was sent
USER_AGENT = f"usercontainerd/{__version__}"


class ConnectionFailed(RegistryError):
    """No answer, or it broke off.

    ``tls`` tells that the other side does not speak TLS as it should, ``absent`` that nobody was reached at all.
    """

    def __init__(
        self, what: str, *, where: str, hint: str | None = None, tls: bool = False, absent: bool = False
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.tls = tls
        self.absent = absent


class Response:
    """An answer whose body has not been read yet."""

    def __init__(self, response: requests.Response, url: str, guard: Guard) -> None:
        self._response = response
        self._guard = guard
        self.url = url
        self.status = response.status_code
        length = self.header("Content-Length")
        self._left = int(length) if length.isascii() and length.isdecimal() else None

    def header(self, name: str) -> str:
        """Value of a header, "" if it is not there."""
        return str(self._response.headers.get(name, ""))

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes of the body exactly as they were sent; b"" at the end.

        Raises ``ConnectionFailed`` if it ends before it should, ``Cancelled`` if the transport was closed.
        """
        try:
            data: bytes = self._response.raw.read(count, decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise _translate(error, self.url, self._guard) from error
        if self._left is not None:
            self._left -= len(data)
            if not data and count and self._left > 0:
                raise _translate(ConnectionError(f"{self._left} bytes are missing"), self.url, self._guard)
        elif not data and self._guard.closed.is_set():
            raise _translate(ConnectionError(), self.url, self._guard)
        return data

    def read_all(self, limit: int) -> bytes:
        """Return the whole body. Raises ``RegistryError`` if it is longer than ``limit`` bytes."""
        data = bytearray()
        while chunk := self.read(min(65536, limit + 1 - len(data))):
            data += chunk
            if len(data) > limit:
                self.close()
                raise RegistryError(f"the answer is longer than the {limit} bytes allowed", where=self.url)
        self.close()
        return bytes(data)

    def close(self) -> None:
        """Give the connection back, or drop it if there is more to read."""
        self._response.close()


class Transport:
    """Connections to registries, for any number of threads; ``close`` ends all that is under way.

    ``certificates`` are those of the registry that all of it is about; without them the system's authorities count.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
        *,
        limits: Limits | None = None,
        patience: Patience | None = None,
    ) -> None:
        limits = limits or Limits()
        self.patience = patience or Patience()
        self._guard = Guard(limits)
        working = replace(limits, read=max(limits.read, WORKING), answer=max(limits.answer, WORKING))
        self._patient = Guard(working, self._guard.closed)
        self._environment = dict(environment or {})
        self._certificates = certificates or Certificates(system=find_system_authorities(self._environment))
        self._lock = threading.Lock()
        self._sessions: dict[tuple[bool | None, Guard], requests.Session] = {}

    def _find_session(self, url: str, verify: bool, guard: Guard) -> requests.Session:
        """The session for plain HTTP, for TLS that is verified, or for TLS that is not."""
        kind = verify if url.lower().startswith("https:") else None
        with self._lock:
            session = self._sessions.get((kind, guard))
            if session is None:
                session = self._sessions[kind, guard] = self._build_session(kind, guard)
            return session

    def _build_session(self, kind: bool | None, guard: Guard) -> requests.Session:
        session = requests.Session()
        # Else requests would send passwords from ~/.netrc and read proxies from a daemon's environment.
        session.trust_env = False
        session.headers.clear()
        session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        session.adapters.clear()
        if kind is None:
            session.mount("http://", GuardedAdapter(guard, CONNECTIONS))
            return session
        # Only who speaks TLS reads the authorities: it takes 10 ms.
        certificates = self._certificates
        context = certificates.build_context(verify=kind, own=False)
        session.mount("https://", GuardedAdapter(guard, CONNECTIONS, context))
        if certificates.pairs:
            context = certificates.build_context(verify=kind, own=True)
            session.mount(
                f"https://{certificates.host.lower()}/", GuardedAdapter(guard, CONNECTIONS, context)
            )
        return session

    def close(self) -> None:
        """Close all connections; transfers of other threads end with ``Cancelled``.

        One that is just connecting ends when that succeeds or fails.
        """
        self._guard.close()
        self._patient.close()
        with self._lock:
            for session in self._sessions.values():
                session.close()

    def wait(self, seconds: float) -> None:
        """Sleep. Raises ``Cancelled`` if the transport is closed meanwhile."""
        if self._guard.closed.wait(seconds):
            raise Cancelled("the transfer was stopped")

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        verify: bool = True,
        body: bytes | Iterable[bytes] | None = None,
        patient: bool = False,
    ) -> Response:
        """Send one request and return the answer, whatever its status.

        A ``body`` that is not bytes has ``__len__`` too, and is sent as it is iterated. ``patient`` is for what takes
        a registry long to do. Raises ``ConnectionFailed``, ``RegistryError``, ``Cancelled``.
        """
        guard = self._patient if patient else self._guard
        if self._guard.closed.is_set():
            raise Cancelled("the transfer was stopped")
        all_headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        if not verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        try:
            response = self._find_session(url, verify, guard).request(
                method,
                url,
                headers=all_headers,
                data=body,
                stream=True,
                allow_redirects=False,
                timeout=(guard.limits.connect, guard.limits.read),
                verify=verify,
                proxies=self._proxies(url),
            )
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            raise _translate(error, url, self._guard) from error
        return Response(response, url, self._guard)

    def _proxies(self, url: str) -> dict[str, str]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host == "localhost" or host.startswith("127.") or host == "::1":
            return {}
        name = f"{parts.scheme}_proxy"
        proxy = self._environment.get(name) or self._environment.get(name.upper())
        exceptions = self._environment.get("no_proxy") or self._environment.get("NO_PROXY") or ""
        if not proxy or _is_excepted(host, parts.port, exceptions):
            return {}
        return {parts.scheme: proxy if "://" in proxy else f"http://{proxy}"}


def _is_excepted(host: str, port: int | None, exceptions: str) -> bool:
    for item in exceptions.split(","):
        pattern, _, wanted = item.strip().lower().partition(":")
        if not pattern or (wanted and wanted != str(port)):
            continue
        if pattern == "*" or host == pattern.lstrip(".") or host.endswith("." + pattern.lstrip(".")):
            return True
    return False


def _translate(error: Exception, url: str, guard: Guard) -> Exception:
    """The error of ours for one of ``requests``, ``urllib3``, ``http.client`` or the system."""
    if guard.closed.is_set():
        return Cancelled("the transfer was stopped", where=url)
    bottom = _find_bottom(error)
    if isinstance(bottom, TooMuch):
        return RegistryError(bottom.strerror or "", where=url)
    if isinstance(error, requests.exceptions.SSLError):
        return ConnectionFailed(
            f"TLS failed: {_explain(error)}",
            where=url,
            hint="a certificate of its own goes into certs.d (see --cert-dir); a registry without TLS must be "
            "marked insecure in registries.conf (see --tls-verify)",
            tls=True,
        )
    if isinstance(error, ValueError):
        return RegistryError(f"not a usable URL: {error}", where=url)
    broken = isinstance(bottom, (http.client.RemoteDisconnected, http.client.IncompleteRead))
    if isinstance(bottom, (http.client.HTTPException, ValueError)) and not (
        broken or isinstance(bottom, OSError)
    ):
        words = str(bottom)[:200] or type(bottom).__name__
        return RegistryError(f"the answer is not proper HTTP: {words}", where=url)
    absent = any(
        isinstance(each, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))
        for each in _walk(error)
    )
    return ConnectionFailed(_explain(error), where=url, absent=absent)


def _walk(error: BaseException) -> list[BaseException]:
    """A pile of wrapped exceptions, from the top down."""
    pile: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is each for each in pile):
        pile.append(cause)
        if isinstance(cause, (TooSlow, TooMuch)):
            break
        reason = getattr(cause, "reason", None)
        inner = next((each for each in reversed(cause.args) if isinstance(each, BaseException)), None)
        # urllib3 1.26 asks for an answer in a way that http.client has not, and then in another: no cause.
        context = None if isinstance(cause.__context__, TypeError) else cause.__context__
        cause = reason if isinstance(reason, BaseException) else inner or cause.__cause__ or context
    return pile


def _find_bottom(error: BaseException) -> BaseException:
    return _walk(error)[-1]


_PLAIN_WORDS = {
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other side wants a client's certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the other side ends the handshake; it may want a client's certificate",
}


def _explain(error: BaseException) -> str:
    """Find the plain words at the bottom of a pile of wrapped exceptions."""
    bottom = _find_bottom(error)
    if isinstance(bottom, (TooSlow, TooMuch)):
        return bottom.strerror or ""
    if isinstance(error, (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        return "no connection within the time allowed"
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return "no answer within the time allowed"
    if isinstance(bottom, ssl.SSLError):
        verdict = str(getattr(bottom, "verify_message", "") or bottom.reason or bottom)
        return _PLAIN_WORDS.get(verdict, verdict)
    if isinstance(bottom, OSError) and bottom.strerror:
        return bottom.strerror
    return str(bottom) or type(bottom).__name__
