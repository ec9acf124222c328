"""Decompressing an archive that a person has made: those that layers have, and bzip2 and xz, too."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.store.inflate import PIECE, Codecs, inflate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAX_XZ_MEMORY = 256 << 20  # `xz -9` wants 65 MiB
XZ = b"\xfd7zXZ\0"
BZIP2 = b"BZh"


def load_all(codecs: Codecs) -> None:
    """Load what ``inflate_any`` may need, for who can import nothing later."""
    import bz2  # noqa: F401
    import lzma  # noqa: F401

    _ = codecs.zstd


def inflate_any(read: Callable[[int], bytes], codecs: Codecs) -> Iterator[bytes]:
    """Yield uncompressed bytes as ``store.inflate`` does, and of xz and bzip2, too: archives come in these."""
    head = b""
    while len(head) < len(XZ) and (more := read(PIECE)):
        head += more
    if head.startswith(XZ):
        import lzma

        def make_xz() -> Any:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)

        return _inflate_frames(head, read, make_xz, (lzma.LZMAError, EOFError), name="xz", magic=XZ)
    if head.startswith(BZIP2):
        import bz2

        return _inflate_frames(
            head, read, bz2.BZ2Decompressor, (OSError, ValueError, EOFError), name="bzip2", magic=BZIP2
        )

    def replay(count: int) -> bytes:
        nonlocal head
        if head:
            data, head = head, b""
            return data
        return read(count)

    return inflate(replay, codecs)


def _inflate_frames(
    data: bytes,
    read: Callable[[int], bytes],
    make: Callable[[], Any],
    failures: tuple[type[Exception], ...],
    *,
    name: str,
    magic: bytes,
) -> Iterator[bytes]:
    """Streams may follow one another; each step's output is bounded."""
    while data:
        frame = make()
        while not frame.eof:
            try:
                output = frame.decompress(data, PIECE)
            except failures as error:
                raise InvalidFormat(f"the archive's {name} data is damaged: {error}") from None
            data = b""
            if output:
                yield output
            if frame.needs_input and not frame.eof:
                data = read(PIECE)
                if not data:
                    raise InvalidFormat(f"the archive's {name} data ends too early")
        data = frame.unused_data or read(PIECE)
        while data and len(data) < len(magic) and (more := read(PIECE)):
            data += more
        if data and not data.startswith(magic):
            if data.strip(b"\0"):
                raise InvalidFormat(f"something other than {name} data follows in the archive")
            return
