"""A registry as a source of images, asked no more than need be, and with no more means than need be.

A manifest has its digest for its name: one that was verified once is taken from the store. Small things of a registry
without TLS come by ``registry.plain``; the full client, and all that it imports, is made when something else is wanted.
"""

from __future__ import annotations

import threading

from usercontainerd.base.errors import DigestMismatch, StoreError
from usercontainerd.oci.digest import Digest, compute_digest, is_digest
from usercontainerd.oci.manifest import ACCEPTED, MAX_MANIFEST, FetchedManifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash
    from typing import Protocol

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.registries.access import RegistryAccess
    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.configuration import Endpoint
    from usercontainerd.registry.plain import PlainAnswer
    from usercontainerd.store.blobs import BlobStore

    class FetchPlain(Protocol):
        """Gets something below the repository, None if that is not possible by plain means."""

        def __call__(self, path: str, /, *, limit: int, accept: str = ...) -> PlainAnswer | None: ...  # noqa: D102


SMALL = 4 * 1024 * 1024  # bytes of a blob that is held in memory


class RegistrySource:
    """The ``ImageSource`` of one repository. ``plain`` is None where nothing must be fetched by plain means."""

    parallel = True
    resumable = True

    def __init__(
        self,
        where: str,
        open_client: Callable[[], RegistryClient],
        blobs: BlobStore,
        plain: FetchPlain | None = None,
    ) -> None:
        self._where = where
        self._open = open_client
        self._blobs = blobs
        self._plain = plain
        self._client: RegistryClient | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> RegistryClient:
        """The client, made at the first use."""
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _fetch_plain(self, path: str, *, limit: int, accept: str = "*/*") -> PlainAnswer | None:
        """One failure is enough: all that follows is the client's."""
        if self._plain is None:
            return None
        answer = self._plain(path, limit=limit, accept=accept)
        if answer is None:
            self._plain = None
        return answer

    def fetch_manifest(self, wanted: str, /) -> FetchedManifest:
        """Return a manifest or index by tag or digest."""
        if is_digest(wanted) and self._blobs.has(Digest(wanted)):
            try:
                return FetchedManifest(self._blobs.read(Digest(wanted)), Digest(wanted), "", self._where)
            except (DigestMismatch, StoreError):
                pass  # damaged on disk: it comes anew
        answer = self._fetch_plain(f"manifests/{wanted}", limit=MAX_MANIFEST, accept=", ".join(ACCEPTED))
        if answer is not None:
            claimed = wanted if is_digest(wanted) else answer.headers.get("docker-content-digest", "")
            if is_digest(claimed):
                digest = compute_digest(answer.body, Digest(claimed).algorithm)
                if digest == claimed:
                    media_type = answer.headers.get("content-type", "")
                    return FetchedManifest(answer.body, digest, media_type, self._where)
        return self.client.fetch_manifest(wanted)

    def fetch_blob(self, blob: Descriptor, /, *, limit: int) -> bytes:
        """Return a small blob, checked."""
        data = self._fetch_small(blob) if blob.size <= limit else None
        return self.client.fetch_blob(blob, limit=limit) if data is None else data

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
        /,
        *,
        start: int = 0,
        state: _Hash | None = None,
    ) -> None:
        """Hand a blob to ``write``, from byte ``start`` on."""
        data = None if start else self._fetch_small(blob)
        if data is None:
            self.client.copy_blob(blob, write, progress, start=start, state=state)
            return
        write(data)
        if progress is not None:
            progress(len(data))

    def _fetch_small(self, blob: Descriptor) -> bytes | None:
        """A blob that is whole and right; whatever is wrong with it is the client's to report."""
        if blob.size > SMALL:
            return None
        answer = self._fetch_plain(f"blobs/{blob.digest}", limit=blob.size)
        if answer is None or len(answer.body) != blob.size:
            return None
        return answer.body if compute_digest(answer.body, blob.digest.algorithm) == blob.digest else None

    def close(self) -> None:
        """Close all connections; transfers of other threads end."""
        self._plain = None
        with self._lock:
            if self._client is not None:
                self._client.close()


def open_registry_source(
    context: Context, endpoint: Endpoint, name: Reference, access: RegistryAccess
) -> RegistrySource:
    """Return ``endpoint`` as the source of the image ``name``; nothing is asked yet."""
    from usercontainerd.engine.registries.access import open_client
    from usercontainerd.store.blobs import BlobStore
    from usercontainerd.store.layout import Store

    return RegistrySource(
        endpoint.reference.name,
        lambda: open_client(context, endpoint, name, access),
        BlobStore(Store(context.paths)),
        _find_plain(context, endpoint, access),
    )


def _find_plain(context: Context, endpoint: Endpoint, access: RegistryAccess) -> FetchPlain | None:
    """Plain means are for registries that may be asked without TLS, directly and by anybody."""
    from usercontainerd.engine.registries.access import look_up_credentials
    from usercontainerd.registry.plain import fetch_plain, is_direct

    insecure = endpoint.insecure if access.tls_verify is None else not access.tls_verify
    if not insecure or not is_direct(endpoint.host, dict(context.environment)):
        return None
    if look_up_credentials(context, endpoint.reference, access) is not None:
        return None

    def fetch(path: str, /, *, limit: int, accept: str = "*/*") -> PlainAnswer | None:
        return fetch_plain(
            endpoint.host, f"/v2/{endpoint.reference.repository}/{path}", limit=limit, accept=accept
        )

    return fetch
