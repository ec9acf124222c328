"""Layers on their way out of the store: as the exact tar archives that they came in, and compressed again.

What comes out has been compared with the diffID by the time the end of the stream is reported: a layer that
was changed on disk never leaves unnoticed.
"""

from __future__ import annotations

from contextlib import ExitStack

from usercontainerd.base.errors import StoreError
from usercontainerd.oci.digest import Digest, new_hash
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.store.compress import Compression, open_compressor
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layout import Store
from usercontainerd.store.rebuild import PULL_AGAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol, Self

    from usercontainerd.engine.context import Context
    from usercontainerd.store.worker import Worker

    class ByteStream(Protocol):
        """Something that gives bytes, b"" at the end."""

        def read(self, count: int, /) -> bytes: ...  # noqa: D102


_PIECE = 512 * 1024
_OCI = {
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
}
_DOCKER = {
    Compression.NONE: "application/vnd.docker.image.rootfs.diff.tar",
    Compression.GZIP: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    Compression.ZSTD: "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


class LayerTar:
    """The exact uncompressed archive of a layer; a context manager that holds the layer meanwhile.

    ``size`` counts the bytes read so far.
    """

    def __init__(self, stream: ByteStream, diff_id: Digest, holds: ExitStack) -> None:
        self._stream = stream
        self._hash = new_hash(diff_id.algorithm)
        self._holds = holds
        self._ended = False
        self.diff_id = diff_id
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; b"" at the end, if they were those of the diffID.

        Raises ``StoreError`` if the layer is not what it was, or was stored without a recipe.
        """
        if self._ended:
            return b""
        try:
            data = self._stream.read(count)
        except StoreError as error:
            raise StoreError(error.what, where=f"layer {self.diff_id}", hint=error.hint) from error
        if data:
            self._hash.update(data)
            self.size += len(data)
            return data
        self._ended = True
        actual = f"{self.diff_id.algorithm}:{self._hash.hexdigest()}"
        if actual != self.diff_id:
            raise StoreError(
                f"the layer was changed on disk: its files now make {actual}",
                where=f"layer {self.diff_id}",
                hint=PULL_AGAIN,
            )
        return b""

    def close(self) -> None:
        """Let go of the layer."""
        self._ended = True
        self._holds.close()


def open_layer_tar(context: Context, worker: Worker, diff_id: Digest) -> LayerTar:
    """Open the exact tar archive of a layer in the store.

    Nobody can remove the layer while it is open. Raises ``StoreError`` if it is not there; ``read`` raises the
    rest.
    """
    store = Store(context.paths)
    layers = ImageStore(store).layers
    with ExitStack() as stack:
        lock = layers.lock(diff_id, exclusive=False)
        lock.acquire()
        stack.callback(lock.release)
        if not layers.has(diff_id):
            raise StoreError(
                "the layer is not in the store, or not whole", where=f"layer {diff_id}", hint=PULL_AGAIN
            )
        rebuilding = worker.start_rebuild(store.layer(diff_id))
        stack.callback(rebuilding.close)
        return LayerTar(rebuilding, diff_id, stack.pop_all())


def compress_layer(
    tar: ByteStream,
    write: Callable[[bytes], object],
    *,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
    docker: bool = False,
    algorithm: str = "sha256",
) -> Descriptor:
    """Compress ``tar`` to its end, hand the result to ``write``, and describe it.

    The media type is OCI's, or Docker's. If ``tar`` is a ``LayerTar``, the diffID has been verified when this
    returns; until then what was written must not count. Raises ``StoreError``, ``InvalidArgument`` and
    ``HostError``, and what ``write`` raises.
    """
    state = new_hash(algorithm)
    size = 0

    def pass_on(data: bytes) -> None:
        nonlocal size
        state.update(data)
        size += len(data)
        write(data)

    compressor = open_compressor(compression, pass_on, level)
    try:
        while data := tar.read(_PIECE):
            compressor.write(data)
        compressor.finish()
    finally:
        compressor.close()
    media_type = (_DOCKER if docker else _OCI)[compression]
    return Descriptor(media_type, Digest(f"{algorithm}:{state.hexdigest()}"), size)
