"""A client of one repository: the pull half of the OCI distribution specification 1.1.

Every byte that is handed on was checked against the digest and size that were promised, except for a manifest asked
for by tag, where the registry's word is all there is. A layer's ``urls`` are never asked: whoever wrote the manifest
could have us ask anybody.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from usercontainerd.base.errors import NoSuchImage, RegistryError
from usercontainerd.oci.digest import (
    Digest,
    check_digest,
    compute_digest,
    explain_mismatch,
    is_digest,
    new_hash,
)
from usercontainerd.oci.manifest import ACCEPTED, MAX_MANIFEST, FetchedManifest
from usercontainerd.registry.session import Session
from usercontainerd.registry.transport import ConnectionFailed, Response, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash

    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.registry.authentication import Credentials
    from usercontainerd.registry.configuration import Endpoint

CHUNK = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z", re.ASCII)


class RegistryClient:
    """Fetches from the repository of ``endpoint``; ``session`` is for the rest: ``upload``, ``listing``.

    For any number of threads; ``close`` in one ends the transfers of the others with ``Cancelled``. Raises
    ``RegistryError``, ``PullDenied``, ``NoSuchImage``.
    """

    parallel = True
    resumable = True

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        *,
        find_credentials: Callable[[], Credentials | None] = lambda: None,
    ) -> None:
        self.session = Session(endpoint, transport, find_credentials)

    @property
    def repository(self) -> str:
        """Its name in messages."""
        return self.session.repository

    def close(self) -> None:
        """Close all connections; transfers that other threads have under way end with ``Cancelled``."""
        self.session.close()

    def list_tags(self) -> list[str]:
        """Return the tags of the repository, in its order. Raises ``NoSuchImage`` if there is no such repository."""
        from usercontainerd.registry.listing import list_tags

        return list_tags(self.session)

    def fetch_manifest(self, wanted: str) -> FetchedManifest:
        """Fetch by tag or digest; bytes asked for by digest are checked against it."""
        response = self.session.get(f"manifests/{quote(wanted, safe=':')}", {"Accept": ", ".join(ACCEPTED)})
        if response.status == 404:
            detail = self.session.read_error(response)
            sign = "@" if is_digest(wanted) else ":"
            raise NoSuchImage(
                f"the registry has no such image{detail}", where=f"{self.repository}{sign}{wanted}"
            )
        self.session.expect(response, (200,))
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
        *,
        start: int = 0,
        state: _Hash | None = None,
    ) -> None:
        """Hand a blob to ``write`` piece by piece, going on where a broken connection left off.

        With ``start`` the first bytes are here already, and ``state`` is their hash: only the rest is fetched, and
        the whole is checked. ``progress`` is told how many bytes there are so far. Raises ``DigestMismatch`` naming
        both digests if the whole was not what was promised: what ``write`` has got must then not be used.
        """
        state = new_hash(blob.digest.algorithm) if state is None else state
        done = start
        failed = 0  # attempts in a row that brought nothing
        while done < blob.size or blob.size == 0:
            before = done
            try:
                for chunk in self._read_blob(blob, done):
                    state.update(chunk)
                    done += len(chunk)
                    write(chunk)
                    if progress is not None:
                        progress(done)
                break
            except ConnectionFailed as error:
                failed = 0 if done > before else failed + 1
                if error.tls or not self.session.pause(failed):
                    raise
        actual = f"{blob.digest.algorithm}:{state.hexdigest()}"
        if done != blob.size or actual != blob.digest:
            short = f" ({done} of {blob.size} bytes)" if done != blob.size else ""
            raise explain_mismatch(blob.digest, actual, what=f"blob{short}", where=self.repository)

    def _read_blob(self, blob: Descriptor, start: int) -> Iterator[bytes]:
        response = self._open_blob(blob, start)
        try:
            yield from _read_body(response, blob.size - start)
        finally:
            response.close()

    def _open_blob(self, blob: Descriptor, start: int) -> Response:
        response = self.session.get(f"blobs/{blob.digest}", {"Range": f"bytes={start}-"} if start else {})
        if response.status == 404:
            response.close()
            raise RegistryError(
                f"the registry lacks the blob {blob.digest} of this image", where=self.repository
            )
        self.session.expect(response, (200, 206) if start else (200,))
        if start and response.status == 200:  # it does not know ranges
            for _ in _read_body(response, start, ends=False):
                pass
            return response
        if response.status == 206:
            self._check_range(response, blob, start)
        length = response.header("Content-Length")
        if length.isdecimal() and int(length) != blob.size - start:
            response.close()
            raise RegistryError(
                f"the registry announces {int(length) + start} bytes for the blob {blob.digest}, "
                f"but the manifest says {blob.size}",
                where=self.repository,
            )
        return response

    def _check_range(self, response: Response, blob: Descriptor, start: int) -> None:
        given = response.header("Content-Range")
        match = _CONTENT_RANGE.match(given)
        if match is None or int(match[1]) != start or match[3] not in ("*", str(blob.size)):
            response.close()
            raise RegistryError(
                f"the registry was asked for the blob {blob.digest} from byte {start} of {blob.size} on, "
                f"and gives {given[:80]!r}",
                where=self.repository,
            )


def _read_body(response: Response, expected: int, *, ends: bool = True) -> Iterator[bytes]:
    """Yield ``expected`` bytes in chunks, fewer only if the body ends; if it ``ends`` here, more is an error."""
    left = expected
    while left > 0:
        chunk = response.read(min(CHUNK, left))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
    if ends and response.header("Content-Length") == "" and response.read(1):
        raise RegistryError("the registry sends more than the promised bytes", where=response.url)
