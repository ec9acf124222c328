"""A registry as a source of images, asked no more than need be: what is here already does not come again.

A manifest has its digest for its name: one that was verified once is taken from the store. The client, and all that it
imports, is made when something has to be fetched.
"""

from __future__ import annotations

from usercontainerd.base.errors import DigestMismatch, StoreError
from usercontainerd.oci.digest import Digest, is_digest
from usercontainerd.oci.manifest import ACCEPTED, FetchedManifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

    from usercontainerd.engine.access import RegistryAccess
    from usercontainerd.engine.context import Context
    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.configuration import Endpoint
    from usercontainerd.store.blobs import BlobStore


class RegistrySource:
    """The ``ImageSource`` of one repository. ``probe`` gives a tag's digest if that can be had cheaply."""

    parallel = True
    resumable = True

    def __init__(
        self,
        where: str,
        open_client: Callable[[], RegistryClient],
        blobs: BlobStore,
        probe: Callable[[str], Digest | None],
    ) -> None:
        self._where = where
        self._open = open_client
        self._blobs = blobs
        self._probe = probe
        self._client: RegistryClient | None = None

    @property
    def client(self) -> RegistryClient:
        """The client, made at the first use."""
        if self._client is None:
            self._client = self._open()
        return self._client

    def fetch_manifest(self, wanted: str, /) -> FetchedManifest:
        """Return a manifest or index by tag or digest."""
        digest = Digest(wanted) if is_digest(wanted) else self._probe(wanted)
        if digest is not None and self._blobs.has(digest):
            try:
                return FetchedManifest(self._blobs.read(digest), digest, "", self._where)
            except (DigestMismatch, StoreError):
                pass  # damaged on disk: it comes anew
        return self.client.fetch_manifest(wanted)

    def fetch_blob(self, blob: Descriptor, /, *, limit: int) -> bytes:
        """Return a small blob, checked."""
        return self.client.fetch_blob(blob, limit=limit)

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
        self.client.copy_blob(blob, write, progress, start=start, state=state)

    def close(self) -> None:
        """Close all connections; transfers of other threads end."""
        if self._client is not None:
            self._client.close()


def open_registry_source(
    context: Context, endpoint: Endpoint, name: Reference, access: RegistryAccess
) -> RegistrySource:
    """Return ``endpoint`` as the source of the image ``name``; nothing is asked yet."""
    from usercontainerd.engine.access import open_client
    from usercontainerd.store.blobs import BlobStore
    from usercontainerd.store.layout import Store

    return RegistrySource(
        endpoint.reference.name,
        lambda: open_client(context, endpoint, name, access),
        BlobStore(Store(context.paths)),
        lambda tag: _probe(context, endpoint, access, tag),
    )


def _probe(context: Context, endpoint: Endpoint, access: RegistryAccess, tag: str) -> Digest | None:
    from usercontainerd.engine.access import look_up_credentials
    from usercontainerd.registry.probe import is_plain, probe_digest

    insecure = endpoint.insecure if access.tls_verify is None else not access.tls_verify
    if not insecure or not is_plain(endpoint.host, dict(context.environment)):
        return None
    if look_up_credentials(context, endpoint.reference, access) is not None:
        return None
    return probe_digest(endpoint.host, endpoint.reference.repository, tag, ACCEPTED)
