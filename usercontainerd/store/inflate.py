"""Decompressing a layer, piece by piece, with the output of each step bounded.

What a blob is compressed with is told by its first bytes, as docker and podman do it. ``isal`` (igzip, twice
as fast as zlib) is used where installed; zstd needs Python 3.14 or the module ``zstandard``.
"""

from __future__ import annotations

import functools
import importlib
import zlib

from usercontainerd.base.errors import HostError, InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PIECE = 256 * 1024
MAX_WINDOW = 27  # log2 of the memory a zstd frame may ask for: what `zstd --long` defaults to
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_REFUSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x89LZO": "lzo", b"\x04\x22\x4d\x18": "lz4"}


def _import_optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _choose_zstd() -> Any:
    """Return a function (head, read) -> iterator of pieces, or None."""
    if (module := _import_optional("compression.zstd")) is not None:  # Python 3.14
        return functools.partial(_inflate_zstd, module)
    if (module := _import_optional("zstandard")) is not None:
        return functools.partial(_inflate_zstandard, module)
    return None


class Codecs:
    """The decompressors that this Python has. Made before chroot(2): afterwards nothing may be imported.

    That for zstd, which takes 10 ms, is loaded when it is needed first: see ``prepare``.
    """

    def __init__(self) -> None:
        self.gzip = _import_optional("isal.isal_zlib") or zlib

    @functools.cached_property
    def zstd(self) -> Any:
        """A function (head, read) -> iterator of pieces, None if there is none."""
        return _choose_zstd()

    def prepare(self, head: bytes) -> None:
        """Load what a stream that begins with ``head`` needs."""
        if head.startswith(_ZSTD):
            _ = self.zstd


def read_head(read: Callable[[int], bytes]) -> bytes:
    """Return the beginning of a stream: enough to tell what it is, if there is as much."""
    head = b""
    while len(head) < 6 and (more := read(PIECE)):
        head += more
    return head


def inflate(read: Callable[[int], bytes], codecs: Codecs) -> Iterator[bytes]:
    """Yield the uncompressed bytes of the stream behind ``read``, which returns b"" at the end.

    Raises ``InvalidFormat`` for broken data, ``HostError`` for a compression that this host lacks.
    """
    head = read_head(read)
    if head.startswith(_GZIP):
        return _inflate_gzip(head, read, codecs.gzip)
    if head.startswith(_ZSTD):
        if codecs.zstd is None:
            raise HostError(
                "the layer is compressed with zstd, which this Python cannot read",
                hint="install python3-zstandard",
            )
        return codecs.zstd(head, read)  # type: ignore[no-any-return]
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise InvalidFormat(f"the layer is compressed with {name}, unknown to OCI")
    return _pass_through(head, read)


def _pass_through(head: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    while head:
        yield head
        head = read(PIECE)


def _inflate_gzip(data: bytes, read: Callable[[int], bytes], module: Any) -> Iterator[bytes]:
    """Members may follow one another (RFC 1952).

    Zeros after the last are padding; other trailing bytes an error.
    """
    while data.startswith(_GZIP[: len(data)]):
        member = module.decompressobj(wbits=31)
        while not member.eof:
            try:
                output = member.decompress(data, PIECE)
            except module.error as error:
                raise InvalidFormat(f"the layer's gzip data is damaged: {error}") from None
            if output:
                yield output
            data = member.unconsumed_tail
            if not member.eof and not data:
                data = read(PIECE)
                if not data and not output:
                    raise InvalidFormat("the layer's gzip data ends too early")
        data = member.unused_data or read(PIECE)
        if len(data) == 1:
            data += read(PIECE)
        if not data:
            return
    while data:
        if data.count(0) != len(data):
            raise InvalidFormat("something other than gzip data follows in the layer")
        data = read(PIECE)


def _inflate_zstd(module: Any, data: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Frames follow one another.

    Skippable ones (zstd:chunked keeps its index there) give no output (RFC 8878).
    """
    while data:
        frame = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: MAX_WINDOW})
        while not frame.eof:
            try:
                output = frame.decompress(data, PIECE)
            except module.ZstdError as error:
                raise InvalidFormat(f"the layer's zstd data is damaged: {error}") from None
            data = b""
            if output:
                yield output
            if frame.needs_input and not frame.eof:
                data = read(PIECE)
                if not data:
                    raise InvalidFormat("the layer's zstd data ends too early")
        data = frame.unused_data or read(PIECE)


class Replay:
    """A file-like object that gives back what was read ahead first."""

    def __init__(self, head: bytes, read: Callable[[int], bytes]) -> None:
        self._head = head
        self._read = read

    def read(self, size: int = PIECE) -> bytes:
        """Return up to ``size`` bytes; b"" at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)


def _inflate_zstandard(module: Any, head: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    # decompressobj() would put out all that a piece of input holds; a reader's output is bounded.
    decompressor = module.ZstdDecompressor(max_window_size=1 << MAX_WINDOW)
    reader = decompressor.stream_reader(Replay(head, read), read_size=PIECE, read_across_frames=True)
    while True:
        try:
            output = reader.read(PIECE)
        except module.ZstdError as error:
            raise InvalidFormat(f"the layer's zstd data is damaged: {error}") from None
        if not output:
            return
        yield output
