"""A client of one repository: the pull half of the OCI distribution specification 1.1.

Every byte that is handed on was checked against the digest and size that were promised, except for a
manifest asked for by tag, where the registry's word is all there is.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode, urljoin, urlsplit

from usercontainerd.base.errors import InvalidFormat, NoSuchImage, PullDenied, RegistryError
from usercontainerd.base.typedjson import parse_json
from usercontainerd.oci.digest import (
    Digest,
    check_digest,
    compute_digest,
    explain_mismatch,
    is_digest,
    new_hash,
)
from usercontainerd.oci.manifest import ACCEPTED, MAX_MANIFEST, FetchedManifest
from usercontainerd.registry.authentication import Credentials, parse_challenges
from usercontainerd.registry.transport import ConnectionFailed, Response, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.registry.authentication import Challenge
    from usercontainerd.registry.configuration import Endpoint

CHUNK = 256 * 1024
MAX_REDIRECTS = 5
MAX_ERROR = 64 * 1024
MAX_TOKEN = 1024 * 1024
BLOB_TRIES = 4
_REDIRECTS = (301, 302, 303, 307, 308)


class RegistryClient:
    """Fetches from the repository of ``endpoint``.

    Raises ``RegistryError``, ``PullDenied``, ``NoSuchImage``.
    """

    parallel = True

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        *,
        find_credentials: Callable[[], Credentials | None] = lambda: None,
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._find_credentials = find_credentials
        self._base: str | None = None
        self._authorization: str | None = None

    @property
    def repository(self) -> str:
        """Its name in messages."""
        return self._endpoint.reference.name

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    # Manifests and blobs

    def fetch_manifest(self, wanted: str) -> FetchedManifest:
        """Fetch by tag or digest; bytes asked for by digest are checked against it."""
        response = self._get(f"manifests/{quote(wanted, safe=':')}", {"Accept": ", ".join(ACCEPTED)})
        if response.status == 404:
            detail = self._read_error(response)
            sign = "@" if is_digest(wanted) else ":"
            raise NoSuchImage(
                f"the registry has no such image{detail}", where=f"{self.repository}{sign}{wanted}"
            )
        self._expect(response, (200,))
        data = response.read_all(MAX_MANIFEST)
        claimed = response.header("Docker-Content-Digest")
        if is_digest(wanted):
            digest = Digest(wanted)
            check_digest(data, digest, what="manifest", where=self.repository)
        else:
            digest = compute_digest(data)
            if is_digest(claimed):
                # Else something between the registry and us has changed the bytes.
                check_digest(data, Digest(claimed), what="manifest", where=self.repository)
        return FetchedManifest(data, digest, response.header("Content-Type"), self.repository)

    def fetch_blob(self, blob: Descriptor, *, limit: int) -> bytes:
        """Fetch a small blob whole. Raises ``DigestMismatch`` naming both digests."""
        if blob.size > limit:
            raise RegistryError(
                f"a blob of {blob.size} bytes is larger than the {limit} allowed", where=self.repository
            )
        data = bytearray()
        self.copy_blob(blob, data.extend)
        return bytes(data)

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hand a blob to ``write`` piece by piece, going on where a broken connection left off.

        Raises ``DigestMismatch`` naming both digests if the whole was not what was promised: what ``write``
        has got must then not be used. ``progress`` is told how many bytes have come so far.
        """
        state = new_hash(blob.digest.algorithm)
        done = 0
        for attempt in range(BLOB_TRIES):
            before = done
            try:
                response = self._open_blob(blob, done)
                for chunk in _read_body(response, blob.size - done):
                    state.update(chunk)
                    done += len(chunk)
                    write(chunk)
                    if progress is not None:
                        progress(done)
                break
            except ConnectionFailed:
                # Only a try that brought something earns another one.
                if attempt == BLOB_TRIES - 1 or (done == before and attempt > 0):
                    raise
        actual = f"{blob.digest.algorithm}:{state.hexdigest()}"
        if done != blob.size or actual != blob.digest:
            short = f" ({done} of {blob.size} bytes)" if done != blob.size else ""
            raise explain_mismatch(blob.digest, actual, what=f"blob{short}", where=self.repository)

    def _open_blob(self, blob: Descriptor, start: int) -> Response:
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._get(f"blobs/{blob.digest}", headers)
        if response.status == 404:
            raise RegistryError(
                f"the registry lacks the blob {blob.digest} of this image", where=self.repository
            )
        self._expect(response, (200, 206) if start else (200,))
        if start and response.status == 200:  # it does not know ranges
            for _ in _read_body(response, start):
                pass
            return response
        length = response.header("Content-Length")
        if length.isdecimal() and int(length) != blob.size - start:
            response.close()
            raise RegistryError(
                f"the registry announces {int(length) + start} bytes for the blob {blob.digest}, "
                f"but the manifest says {blob.size}",
                where=self.repository,
            )
        return response

    # Requests

    def _get(self, path: str, headers: dict[str, str]) -> Response:
        """GET below the repository; answers challenges, follows redirects, finds out about TLS."""
        challenged = False
        while True:
            url = f"{self._find_base()}/v2/{self._endpoint.reference.repository}/{path}"
            response = self._follow(url, headers, self._authorization)
            if response.status != 401 or _origin(response.url) != _origin(url):
                return response
            challenges = parse_challenges(response.header("WWW-Authenticate"))
            detail = self._read_error(response)
            if challenged or not self._answer(challenges):
                raise PullDenied(
                    f"the registry refuses access{detail}",
                    where=self.repository,
                    hint="the repository may not exist, or need a login (auth.json)",
                )
            challenged = True

    def _find_base(self) -> str:
        """Scheme and host. An insecure registry may speak TLS all the same; plain HTTP is for no other."""
        if self._base is None:
            secure = f"https://{self._endpoint.host}"
            if self._endpoint.insecure:
                try:
                    self._transport.request("GET", f"{secure}/v2/", {}, verify=False).close()
                except ConnectionFailed as error:
                    self._base = f"http://{self._endpoint.host}"
                    if not error.tls:
                        self._transport.request("GET", f"{self._base}/v2/", {}).close()
                    return self._base
            self._base = secure
        return self._base

    def _follow(self, url: str, headers: dict[str, str], authorization: str | None) -> Response:
        origin = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            # Credentials are for the registry alone, not for where it redirects to.
            if authorization is not None and _origin(url) == origin:
                sent["Authorization"] = authorization
            response = self._transport.request("GET", url, sent, verify=not self._endpoint.insecure)
            if response.status not in _REDIRECTS:
                return response
            location = response.header("Location")
            response.close()
            if not location:
                raise RegistryError("a redirect leads nowhere", where=url)
            target = urljoin(url, location)
            self._check_redirect(url, target)
            url = target
        raise RegistryError(f"more than {MAX_REDIRECTS} redirects", where=url)

    def _check_redirect(self, url: str, target: str) -> None:
        parts = urlsplit(target)
        allowed = ("https", "http") if self._endpoint.insecure else ("https",)
        if parts.scheme not in allowed or not parts.hostname:
            raise RegistryError(f"a redirect leads to {target[:200]!r}, which is not allowed", where=url)
        if parts.username is not None or parts.password is not None:
            raise RegistryError("a redirect holds a user name", where=url)

    def _expect(self, response: Response, statuses: tuple[int, ...]) -> None:
        if response.status in statuses:
            return
        detail = self._read_error(response)
        if response.status in (401, 403):
            raise PullDenied(f"the registry refuses access{detail}", where=self.repository)
        hint = None
        if response.status == 429:
            wait = response.header("Retry-After")
            hint = "you have asked too often; log in or wait" + (f" {wait} s" if wait.isdecimal() else "")
        raise RegistryError(
            f"the registry answers with status {response.status}{detail}", where=self.repository, hint=hint
        )

    @staticmethod
    def _read_error(response: Response) -> str:
        """Return the registry's own words from an error's body, for the end of a message."""
        try:
            document = parse_json(response.read_all(MAX_ERROR), "error", limit=MAX_ERROR)
            words = [error.get("message").text("") for error in document.get("errors").elements()]
        except (RegistryError, InvalidFormat):
            return ""
        finally:
            response.close()
        text = "; ".join(word for word in words if word)[:300]
        return f": {text}" if text else ""

    # Authentication

    def _answer(self, challenges: list[Challenge]) -> bool:
        """Get an Authorization header for the registry's challenges; False if there is none to be had."""
        credentials = self._find_credentials()
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                self._authorization = f"Bearer {self._fetch_token(challenge, credentials)}"
                return True
            if challenge.scheme == "basic" and credentials is not None and credentials.user:
                self._authorization = credentials.basic
                return True
        return False

    def _fetch_token(self, challenge: Challenge, credentials: Credentials | None) -> str:
        realm = challenge.parameters["realm"]
        self._check_realm(realm)
        if credentials is not None and not self._may_send(realm):
            credentials = None
        query = {"service": challenge.parameters.get("service", "")}
        query["scope"] = f"repository:{self._endpoint.reference.repository}:pull"
        query = {key: value for key, value in query.items() if value}
        if credentials is not None and credentials.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": "usercontainerd",
                "refresh_token": credentials.identity_token,
            }
            response = self._transport.request(
                "POST",
                realm,
                {"Content-Type": "application/x-www-form-urlencoded"},
                verify=not self._endpoint.insecure,
                body=urlencode(form).encode(),
            )
        else:
            separator = "&" if "?" in realm else "?"
            basic = credentials.basic if credentials is not None and credentials.user else None
            response = self._follow(f"{realm}{separator}{urlencode(query)}", {}, basic)
        if response.status in (401, 403):
            detail = self._read_error(response)
            raise PullDenied(f"the login was refused{detail}", where=realm, hint="log in again")
        self._expect(response, (200,))
        document = parse_json(response.read_all(MAX_TOKEN), "token", limit=MAX_TOKEN, source=realm)
        token = document.get("token").text("") or document.get("access_token").text("")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise RegistryError("the token service gave no usable token", where=realm)
        return token

    def _check_realm(self, realm: str) -> None:
        parts = urlsplit(realm)
        same_host = parts.hostname == urlsplit(self._find_base()).hostname
        if parts.scheme == "https" and parts.hostname and parts.username is None:
            return
        # Without TLS only where the registry itself is configured to be without.
        if parts.scheme == "http" and same_host and self._find_base().startswith("http:"):
            return
        raise RegistryError(
            f"the registry wants a token from {realm[:200]!r}, which is not allowed", where=self.repository
        )

    def _may_send(self, realm: str) -> bool:
        """Tell whether a password may go to ``realm``: the registry's host or one of the same domain."""
        host, own = urlsplit(realm).hostname or "", urlsplit(self._find_base()).hostname or ""
        return host == own or (_domain(host) == _domain(own) and not host.replace(".", "").isdigit())


def _domain(host: str) -> str:
    return ".".join(host.rsplit(".", 2)[-2:])


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return (parts.scheme, parts.hostname, parts.port)


def _read_body(response: Response, expected: int) -> Iterator[bytes]:
    """Yield ``expected`` bytes in chunks, fewer only if the body ends; a longer body is an error."""
    left = expected
    while left > 0:
        chunk = response.read(min(CHUNK, left))
        if not chunk:
            response.close()
            return
        left -= len(chunk)
        yield chunk
    if response.header("Content-Length") == "" and response.read(1):
        response.close()
        raise RegistryError("the registry sends more than the promised bytes", where=response.url)
    response.close()
