"""The push half of the OCI distribution specification 1.1: blobs, mounts, manifests, and taking manifests away.

A blob is sent in one request. If that breaks off, or the registry finds it too large for one, it is sent in chunks,
each of which can go on where the one before ended. Where an upload goes is for the registry to say, within the rules
of ``origins``; credentials go along only to the registry's own origin.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from usercontainerd.base.errors import DigestMismatch, PullDenied, RegistryError, StoreError
from usercontainerd.oci.digest import Digest, compute_digest, explain_mismatch, is_digest
from usercontainerd.oci.manifest import MAX_MANIFEST, OCI_INDEX
from usercontainerd.registry.origins import find_origin, resolve_upload
from usercontainerd.registry.patience import RETRIED
from usercontainerd.registry.referrers import find_subject, list_under_tag
from usercontainerd.registry.transport import ConnectionFailed, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.registry.session import Session

CHUNK = 16 * 1024 * 1024  # of a chunked upload, unless the registry wants more at least
_MAX_CHUNK = 1 << 30
_PIECE = 256 * 1024
_CREATED = (200, 201, 204)
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})\Z", re.ASCII)


def ignore_count(_done: int) -> None:
    """The progress of those who do not care."""


class Part:
    """A part of a file as the body of a request: its length is known, and it can be sent again from its beginning."""

    def __init__(self, file: BinaryIO, start: int, length: int, sent: Callable[[int], None]) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._sent = sent

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        left = self._length
        while left:
            data = self._file.read(min(_PIECE, left))
            if not data:
                raise StoreError("a blob became shorter while it was being sent")
            left -= len(data)
            yield data
            self._sent(self._start + self._length - left)


class Interrupted(RegistryError):
    """An upload that may succeed the next time, or in another way."""


class Uploader:
    """Puts blobs and manifests into the repository of ``session``; for any number of threads.

    Raises ``RegistryError``, ``PullDenied``, ``DigestMismatch``, ``Cancelled``.
    """

    def __init__(self, session: Session, *, chunk: int = CHUNK) -> None:
        self._session = session
        self._scope = (session.build_scope("pull,push"),)
        self._chunk = chunk

    # Blobs

    def has_blob(self, blob: Descriptor) -> bool:
        """Tell whether the repository has a blob already."""
        url = self._session.build_url(f"blobs/{blob.digest}")
        response = self._session.request("HEAD", url, scope=self._scope)
        response.close()
        if response.status in (401, 403) and find_origin(response.url) == find_origin(url):
            raise PullDenied("the registry refuses access", where=self._session.repository)
        length = response.header("Content-Length")
        # What is not surely there is sent.
        return response.status == 200 and length in ("", str(blob.size))

    def mount_blob(self, blob: Descriptor, source: str) -> bool:
        """Let the repository have a blob of the registry's repository ``source``; False if that is not possible."""
        query = urlencode({"mount": blob.digest, "from": source})
        url = self._session.build_url(f"blobs/uploads/?{query}")
        scope = (*self._scope, self._session.build_scope("pull", source))
        try:
            response = self._session.request("POST", url, scope=scope, body=b"", retry=True)
        except PullDenied:
            return False  # of the other repository, perhaps; sending the blob will tell
        response.close()
        if response.status == 202:
            # It has begun an upload instead.
            self._cancel(self._find_location(response))
        return response.status == 201

    def put_blob(
        self, blob: Descriptor, file: BinaryIO, progress: Callable[[int], None] = ignore_count
    ) -> None:
        """Send a blob from ``file``, which can seek; ``progress`` is told how much has been sent."""
        attempt = 0
        while True:
            url, smallest = self._begin()
            try:
                if attempt % 2:
                    url = self._send_chunks(url, blob, file, max(self._chunk, smallest), progress)
                    self._finish(url, blob, None)
                else:
                    self._finish(url, blob, Part(file, 0, blob.size, progress))
                return
            except (ConnectionFailed, Interrupted):
                self._cancel(url)
                if not self._session.pause(attempt):
                    raise
            except RegistryError:
                self._cancel(url)
                raise
            attempt += 1

    def _begin(self) -> tuple[str, int]:
        """Begin an upload; return its URL and the size that its chunks must have at least."""
        url = self._session.build_url("blobs/uploads/")
        response = self._session.request("POST", url, scope=self._scope, body=b"", retry=True)
        self._session.expect(response, (202,))
        response.close()
        smallest = response.header("OCI-Chunk-Min-Length")
        return self._find_location(response), min(int(smallest), _MAX_CHUNK) if smallest.isdecimal() else 0

    def _find_location(self, response: Response, default: str | None = None) -> str:
        location = response.header("Location")
        if not location:
            if default is not None:
                return default
            raise RegistryError("the registry does not say where to send a blob", where=response.url)
        registry = find_origin(self._session.find_base())[1]
        return resolve_upload(response.url, location, registry=registry)

    def _finish(self, url: str, blob: Descriptor, body: Part | None) -> None:
        """Say that all has been sent; with ``body`` this very request sends it."""
        separator = "&" if "?" in url else "?"
        response = self._session.request(
            "PUT",
            f"{url}{separator}{urlencode({'digest': blob.digest})}",
            {"Content-Type": "application/octet-stream"},
            scope=self._scope,
            body=body if body is not None and len(body) else b"",
            retry=False,
            patient=True,
        )
        if body is not None and response.status in (*RETRIED, 413):
            response.close()
            raise Interrupted(
                f"the registry answers an upload with status {response.status}",
                where=self._session.repository,
            )
        self._session.expect(response, _CREATED)
        response.close()
        self._check_digest(response, blob.digest, "blob")

    def _send_chunks(
        self, url: str, blob: Descriptor, file: BinaryIO, size: int, progress: Callable[[int], None]
    ) -> str:
        """Send a blob piece by piece; return the URL at which to finish it."""
        done = 0
        failed = 0  # attempts in a row
        while done < blob.size:
            length = min(size, blob.size - done)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{done}-{done + length - 1}",
            }
            try:
                part = Part(file, done, length, progress)
                response = self._session.request(
                    "PATCH", url, headers, scope=self._scope, body=part, retry=False
                )
                if response.status in (*RETRIED, 416):
                    response.close()
                    raise Interrupted(
                        f"the registry answers a chunk with status {response.status}",
                        where=self._session.repository,
                    )
                if response.status in (400, 404, 405, 501) and done == 0:
                    response.close()
                    raise Interrupted("the registry takes no chunks", where=self._session.repository)
                self._session.expect(response, (200, 201, 202, 204))
                response.close()
                url = self._find_location(response, url)
                arrived = self._read_range(response, done + 1, done + length)
                # One that takes each time a little only is not waited for without end.
                failed = 0 if arrived == done + length else failed + 1
                if failed and not self._session.pause(failed - 1):
                    raise RegistryError(
                        "the registry takes less than it is sent", where=self._session.repository
                    )
                done = arrived
            except (ConnectionFailed, Interrupted):
                failed += 1
                if not self._session.pause(failed - 1):
                    raise
                url, done = self._ask_how_far(url, blob.size)
        return url

    def _ask_how_far(self, url: str, size: int) -> tuple[str, int]:
        """Ask an upload how much of it has arrived; return the URL at which to go on, and the number of bytes."""
        response = self._session.request("GET", url, scope=self._scope)
        if response.status not in (200, 202, 204):
            response.close()
            raise Interrupted("the registry has forgotten an upload", where=self._session.repository)
        response.close()
        return self._find_location(response, url), self._read_range(response, 0, size)

    def _read_range(self, response: Response, least: int, most: int) -> int:
        """Return the number of bytes that have arrived. What it cannot tell, or cannot be, is not gone on with."""
        given = response.header("Range")
        match = _RANGE.match(given)
        if given == "" and response.status in (201, 202):
            return most
        # "0-0" is what some say when there is nothing yet, and others for one byte.
        count = int(match[1]) + 1 if match is not None else 0
        if match is None or count == 1 or not least <= count <= most:
            raise Interrupted(
                f"the registry does not say properly how far an upload is: {given[:80]!r}",
                where=self._session.repository,
            )
        return count

    def _cancel(self, url: str) -> None:
        """Let the registry forget an upload; it would by itself after some days."""
        try:
            self._session.request("DELETE", url, scope=self._scope, retry=False).close()
        except (RegistryError, PullDenied):
            pass

    # Manifests

    def put_manifest(self, wanted: str, data: bytes, media_type: str) -> Digest:
        """Put a manifest or index under a tag or its digest; return its digest.

        One that refers to another (``subject``) is put into the list of those, if the registry keeps none by itself.
        """
        digest, kept = self._put(wanted, data, media_type)
        found = None if kept else find_subject(data, digest, media_type)
        if found is not None:
            list_under_tag(
                self._session, self._scope, lambda tag, index: self._put(tag, index, OCI_INDEX), *found
            )
        return digest

    def _put(self, wanted: str, data: bytes, media_type: str) -> tuple[Digest, bool]:
        """Return the digest, and whether the registry itself lists what refers to what."""
        if len(data) > MAX_MANIFEST:
            raise RegistryError(f"a manifest of {len(data)} bytes is larger than registries take")
        digest = compute_digest(data)
        if is_digest(wanted):
            digest = compute_digest(data, Digest(wanted).algorithm)
            if digest != wanted:
                raise explain_mismatch(wanted, digest, what="manifest", where=self._session.repository)
        url = self._session.build_url(f"manifests/{quote(wanted, safe=':')}")
        response = self._session.request(
            "PUT", url, {"Content-Type": media_type}, scope=self._scope, body=data, retry=True, patient=True
        )
        self._session.expect(response, (200, 201, 202))
        response.close()
        self._check_digest(response, digest, "manifest")
        return digest, bool(response.header("OCI-Subject"))

    def delete_manifest(self, wanted: str) -> None:
        """Take a manifest, or only a tag, out of the repository."""
        url = self._session.build_url(f"manifests/{quote(wanted, safe=':')}")
        scope = (self._session.build_scope("*"),)
        response = self._session.request("DELETE", url, scope=scope, retry=True)
        if response.status == 405:
            response.close()
            raise RegistryError("the registry lets nobody delete", where=self._session.repository)
        self._session.expect(response, (200, 202, 204))
        response.close()

    def _check_digest(self, response: Response, expected: Digest, what: str) -> None:
        """The registry says what it has got: if that is something else, something has changed it on the way."""
        claimed = response.header("Docker-Content-Digest")
        if is_digest(claimed) and Digest(claimed).algorithm == expected.algorithm and claimed != expected:
            raise DigestMismatch(
                f"the registry has got another {what} than was sent: {claimed} instead of {expected}",
                where=self._session.repository,
            )
