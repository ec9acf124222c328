"""The forms in which a layer of the store can be given away: the compressed blob in which it came, or made anew."""

from __future__ import annotations

import os
from contextlib import ExitStack

from usercontainerd.base.errors import StoreError
from usercontainerd.engine.images.layer_streams import LayerTar, compress_layer, open_layer_tar
from usercontainerd.oci.digest import new_hash
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.store.images import ImageStore
from usercontainerd.store.inflate import Codecs, inflate
from usercontainerd.store.layout import Store
from usercontainerd.store.recipe import NAME, RecipeReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usercontainerd.engine.context import Context
    from usercontainerd.oci.digest import Digest
    from usercontainerd.store.worker import Worker

_PIECE = 512 * 1024


class LayerForms:
    """Gives layers away; ``start`` starts the worker that reads their files, once it is needed."""

    def __init__(self, context: Context, start: Callable[[], Worker]) -> None:
        self._context = context
        self._store = Store(context.paths)
        self._layers = ImageStore(self._store).layers
        self._start = start

    def find_kept(self, diff_id: Digest, original: Descriptor | None) -> Descriptor | None:
        """Return the compressed blob of a layer that is kept in the store, the ``original`` rather than others."""
        return self._find_blob(diff_id, original, plain=False)

    def _find_blob(self, diff_id: Digest, original: Descriptor | None, *, plain: bool) -> Descriptor | None:
        record = self._layers.read(diff_id)
        blobs = [] if record is None else [b for b in record.blobs if plain or b.digest != diff_id]
        if original is not None:
            blobs.sort(key=lambda blob: blob.digest != original.digest)
        for blob in blobs:
            try:
                status = os.stat(self._store.blob(blob.digest))
            except OSError:
                continue
            if status.st_size == blob.size:
                return Descriptor(blob.media_type, blob.digest, blob.size)
        return None

    def read_kept(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield a blob that is kept. Raises ``StoreError`` at the end if the disk has changed it."""
        path = self._store.blob(blob.digest)
        state = new_hash(blob.digest.algorithm)
        try:
            with open(path, "rb") as file:
                while data := file.read(_PIECE):
                    state.update(data)
                    yield data
        except OSError as error:
            raise StoreError(f"a layer's blob cannot be read: {error.strerror}", where=path) from error
        if f"{blob.digest.algorithm}:{state.hexdigest()}" != blob.digest:
            raise StoreError(
                "a layer's blob was changed on disk", where=path, hint="remove the image and pull it again"
            )

    def measure_tar(self, diff_id: Digest) -> int:
        """Bytes of the layer's uncompressed archive. Raises ``StoreError`` for a layer that has no recipe, nor blob."""
        path = f"{self._store.layer(diff_id)}/{NAME}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return sum(map(len, self.read_tar(diff_id)))
        except OSError as error:
            raise StoreError(f"the layer's recipe cannot be read: {error.strerror}", where=path) from error
        try:
            if os.fstat(fd).st_size == 0:
                return sum(map(len, self.read_tar(diff_id)))
            return sum(
                len(data) if name is None else len(data) + size
                for data, name, _, size, _ in RecipeReader(fd).read()
            )
        finally:
            os.close(fd)

    def read_tar(self, diff_id: Digest) -> Iterator[bytes]:
        """Yield the layer's exact archive. Raises ``StoreError`` at the end if it is another."""
        with self.open_tar(diff_id) as tar:
            while data := tar.read(_PIECE):
                yield data

    def open_tar(self, diff_id: Digest) -> LayerTar:
        """Open the layer's exact archive: from its files, or from the blob that was kept, if there is no recipe."""
        if not self._has_recipe(diff_id) and (blob := self._find_blob(diff_id, None, plain=True)) is not None:
            return LayerTar(InflatedBlob(self.read_kept(blob)), diff_id, ExitStack())
        return open_layer_tar(self._context, self._start(), diff_id)

    def _has_recipe(self, diff_id: Digest) -> bool:
        try:
            return os.stat(f"{self._store.layer(diff_id)}/{NAME}").st_size > 0
        except FileNotFoundError:
            return False

    def compress(self, diff_id: Digest, write: Callable[[bytes], object], *, docker: bool) -> Descriptor:
        """Hand the layer, compressed with gzip, to ``write``."""
        with self.open_tar(diff_id) as tar:
            return compress_layer(tar, write, docker=docker)


class InflatedBlob:
    """The uncompressed bytes of a blob of the store, as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = inflate(lambda _count: next(pieces, b""), Codecs())

    def read(self, _count: int) -> bytes:
        """Return some bytes, b"" at the end."""
        return next(self._pieces, b"")
