"""Small blobs kept byte for byte.

Manifests, indexes, configurations. Their bytes are what digests are made of.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import StoreError
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.oci.digest import Digest, check_digest, compute_digest
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BLOB = 4 * 1024 * 1024  # as oci.manifest, which would bring dataclasses into every listing of images


class BlobStore:
    """The blobs of a store, each at most ``MAX_BLOB`` bytes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, digest: Digest) -> bytes:
        """Return a blob.

        Raises ``StoreError`` if it is missing, ``DigestMismatch`` if the disk has changed it.
        """
        path = self._store.blob(digest)
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BLOB + 1)
        except OSError as error:
            raise StoreError(
                f"a part of an image cannot be read: {error.strerror}",
                where=path,
                hint="pull the image again",
            ) from error
        check_digest(data, digest, what="stored blob", where=path)
        return data

    def has(self, digest: Digest) -> bool:
        """Tell whether the blob is there."""
        return os.path.exists(self._store.blob(digest))

    def add(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """Keep ``data``; return its digest. On disk for good when this returns."""
        digest = compute_digest(data, algorithm)
        path = self._store.blob(digest)
        if not _holds(path, data):
            write_atomic(path, data)
        return digest

    def all(self) -> Iterator[Digest]:
        """Yield the digests of all blobs."""
        for algorithm, length in (("sha256", 64), ("sha512", 128)):
            try:
                names = os.listdir(os.path.dirname(self._store.blob(Digest(f"{algorithm}:x"))))
            except FileNotFoundError:
                continue
            yield from (Digest(f"{algorithm}:{name}") for name in names if len(name) == length)

    def collect(self, needed: set[Digest]) -> None:
        """Delete every blob that is not ``needed``. The caller holds the lock of the image records."""
        for digest in self.all():
            if digest not in needed:
                os.unlink(self._store.blob(digest))


def _holds(path: str, data: bytes) -> bool:
    """Tell whether the file is there and has not been damaged."""
    try:
        with open(path, "rb") as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False
