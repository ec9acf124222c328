"""HTTP for registries on ``requests``, told to do nothing by itself: no redirects, no .netrc, no environment.

``requests`` takes 160 ms to import. Whoever can answer without a registry must not import this module.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from usercontainerd import __version__
from usercontainerd.base.errors import RegistryError
from usercontainerd.registry.certificates import Certificates, find_system_authorities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CONNECT_TIMEOUT = 15.0  # seconds, for each address
READ_TIMEOUT = 60.0  # seconds without a byte
USER_AGENT = f"usercontainerd/{__version__}"


class ConnectionFailed(RegistryError):
    """No answer, or it broke off. ``tls`` tells that the other side does not speak TLS as it should."""

    def __init__(self, what: str, *, where: str, hint: str | None = None, tls: bool = False) -> None:
        super().__init__(what, where=where, hint=hint)
        self.tls = tls


class Response:
    """An answer whose body has not been read yet."""

    def __init__(self, response: requests.Response, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status_code

    def header(self, name: str) -> str:
        """Value of a header, "" if it is not there."""
        return str(self._response.headers.get(name, ""))

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes of the body exactly as they were sent; b"" at the end."""
        try:
            data: bytes = self._response.raw.read(count, decode_content=False)
            return data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionFailed(_explain(error), where=self.url) from error

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


class _TlsAdapter(HTTPAdapter):
    """Connections whose TLS is as one context says: ``requests`` adds no authorities of its own."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, _url: str, verify: Any, _cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"


class Transport:
    """Connections to registries; used by one thread at a time.

    ``certificates`` are those of the registry that all of it is about; without them the system's authorities count.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._session = requests.Session()
        # Else requests would send passwords from ~/.netrc and read proxies from a daemon's environment.
        self._session.trust_env = False
        self._session.headers.clear()
        self._environment = dict(environment or {})
        self._timeouts = (connect_timeout, read_timeout)
        self._certificates = certificates or Certificates(system=find_system_authorities(self._environment))
        self._verifies: bool | None = None  # None: no TLS yet; reading the authorities takes 10 ms

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        verify: bool = True,
        body: bytes | None = None,
    ) -> Response:
        """Send one request and return the answer, whatever its status. Raises ``ConnectionFailed``."""
        all_headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        if not verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if url.lower().startswith("https:"):
            self._prepare_tls(verify)
        try:
            response = self._session.request(
                method,
                url,
                headers=all_headers,
                data=body,
                stream=True,
                allow_redirects=False,
                timeout=self._timeouts,
                verify=verify,
                proxies=self._proxies(url),
            )
        except requests.exceptions.SSLError as error:
            raise ConnectionFailed(
                f"TLS failed: {_explain(error)}",
                where=url,
                hint="a certificate of its own goes into certs.d (see --cert-dir); a registry without TLS must be "
                "marked insecure in registries.conf (see --tls-verify)",
                tls=True,
            ) from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ConnectionFailed(_explain(error), where=url) from error
        except ValueError as error:
            raise RegistryError(f"not a usable URL: {error}", where=url) from error
        return Response(response, url)

    def _prepare_tls(self, verify: bool) -> None:
        if self._verifies is verify:
            return
        certificates = self._certificates
        self._session.mount("https://", _TlsAdapter(certificates.build_context(verify=verify, own=False)))
        if certificates.pairs:
            own = certificates.build_context(verify=verify, own=True)
            self._session.mount(f"https://{certificates.host.lower()}/", _TlsAdapter(own))
        self._verifies = verify

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


def _explain(error: BaseException) -> str:
    """Find the plain words at the bottom of a pile of wrapped exceptions."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        return "no connection within the time allowed"
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return "no answer within the time allowed"
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
        reason = getattr(cause, "reason", None)
        inner = cause.args[0] if cause.args and isinstance(cause.args[0], BaseException) else None
        cause = reason if isinstance(reason, BaseException) else inner or cause.__cause__ or cause.__context__
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
