"""Recipes: what a layer's directory lacks of the exact tar archive that it was unpacked from.

A push or save must give back the very bytes that have the layer's diffID, but keeping every archive beside
its unpacked files would double the store. So all that is not content of regular files (headers, extended
headers, padding, what follows the archive) is kept, compressed, in ``layers/HEX/recipe``; contents are
referred to by their path in ``diff/``. Content that is not there any more at the end, because a later entry
took its name, is kept too, up to a limit; past it the recipe is given up and the layer needs its blob.

The file: ``MAGIC``, then one gzip member (its CRC-32 and length are the checksum) of records, each a letter
and little-endian numbers::

    V  u32 length, bytes                    bytes of the archive
    C  u16 length, u64 size, path           all of a file's content
    S  u16 length, u64 offset, u64 size, path   a part of a file's content (sparse files)
    O  u16 length, u32 size, path, bytes    the file lost its name here, and had this content: the nearest O
                                            of a path that follows a C or S stands for the file
    E  u64 size                             the end, and the archive's size
"""

from __future__ import annotations

import os
import queue
import re
import struct
import threading
import zlib

from usercontainerd.base.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAGIC = b"usercontainer recipe 1\n"
_LATER = re.compile(rb"usercontainer recipe [1-9][0-9\n]")
NAME = "recipe"
MAX_LOST = 8 * 1024 * 1024  # bytes of content kept in a recipe: a reader holds them in memory
MAX_SIZE = 256 * 1024 * 1024  # bytes of the compressed file
_PIECE = 256 * 1024
_DEPTH = 8  # pieces that may wait for the compressor
_VERBATIM = struct.Struct("<cI")
_CONTENT = struct.Struct("<cHQ")
_SEGMENT = struct.Struct("<cHQQ")
_LOST = struct.Struct("<cHI")
_END = struct.Struct("<cQ")


class Recorder:
    """Writes a recipe to ``fd`` (which it closes) while a layer is unpacked, compressing in a thread.

    ``module`` is zlib or works like it. What goes wrong while writing comes out of ``finish``.
    """

    def __init__(
        self, fd: int, module: Any = zlib, *, max_lost: int = MAX_LOST, max_size: int = MAX_SIZE
    ) -> None:
        self._fd = fd
        self._module = module
        self._lost_left = max_lost
        self._max_size = max_size
        self._verbatim: list[bytes] = []
        self._verbatim_size = 0
        self._records: list[bytes] = []
        self._records_size = 0
        self._total = 0
        self._given_up = False
        self._error: OSError | None = None
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._thread = threading.Thread(target=self._compress, name="recipe", daemon=True)
        self._thread.start()

    def add(self, data: bytes) -> None:
        """Take bytes of the archive that are in no file."""
        self._verbatim.append(data)
        self._verbatim_size += len(data)
        if self._verbatim_size >= _PIECE:
            self._end_verbatim()
            self._pass_on()

    def add_content(self, path: bytes, size: int) -> None:
        """The archive goes on with ``size`` bytes, which are all that the file ``path`` holds."""
        records = self._records
        if length := self._verbatim_size:
            # As _end_verbatim does it; this is called for each file.
            records.append(_VERBATIM.pack(b"V", length))
            records += self._verbatim
            self._verbatim.clear()
            self._verbatim_size = 0
        records.append(_CONTENT.pack(b"C", len(path), size))
        records.append(path)
        self._records_size += length + 30 + len(path)
        self._total += length + size
        if self._records_size >= _PIECE:
            self._pass_on()

    def add_segment(self, path: bytes, offset: int, size: int) -> None:
        """The archive goes on with the ``size`` bytes that the file ``path`` has at ``offset``."""
        self._end_verbatim()
        self._records += (_SEGMENT.pack(b"S", len(path), offset, size), path)
        self._records_size += 27 + len(path)
        self._total += size
        if self._records_size >= _PIECE:
            self._pass_on()

    def add_lost(self, path: bytes, size: int, read: Callable[[], bytes]) -> None:
        """The file ``path`` is about to be removed: keep its content, if there is room."""
        self._lost_left -= size
        if self._lost_left < 0:
            self.give_up()
        if self._given_up:
            return
        content = read()
        self._end_verbatim()
        self._records += (_LOST.pack(b"O", len(path), len(content)), path, content)
        self._records_size += 7 + len(path) + len(content)
        self._pass_on()

    def give_up(self) -> None:
        """The archive cannot be had back from the layer's files."""
        self._given_up = True

    def finish(self) -> bool:
        """Write what is left; tell whether the recipe is complete. If not, the file is left empty."""
        self._end_verbatim()
        self._records.append(_END.pack(b"E", self._total))
        self._pass_on()
        self._queue.put(None)
        self._thread.join()
        try:
            if self._error is not None:
                raise self._error
            if self._given_up:
                os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)
        return not self._given_up

    def _end_verbatim(self) -> None:
        size = self._verbatim_size
        if size:
            self._records.append(_VERBATIM.pack(b"V", size))
            self._records += self._verbatim
            self._records_size += size + 5
            self._total += size
            self._verbatim.clear()
            self._verbatim_size = 0

    def _pass_on(self) -> None:
        if not self._given_up:
            self._queue.put(b"".join(self._records))
        self._records.clear()
        self._records_size = 0

    def _compress(self) -> None:
        compressor = self._module.compressobj(1, self._module.DEFLATED, 31)
        written = self._write(MAGIC)
        while (piece := self._queue.get()) is not None:
            if not self._given_up:
                written += self._write(compressor.compress(piece))
                if written > self._max_size:
                    self._given_up = True
        if not self._given_up:
            self._write(compressor.flush())

    def _write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view and self._error is None:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._error = error  # the disk is full: the unpacking finds out as well, and says so
        return len(data)


class RecipeReader:
    """Reads a recipe from a file. Every damage is a ``StoreError``."""

    def __init__(self, fd: int, module: Any = zlib) -> None:
        self._fd = fd
        self._module = module
        self._lost: dict[bytes, list[tuple[int, bytes]]] = {}

    def read(self) -> Iterator[tuple[bytes, bytes | None, int, int, bool]]:
        """Yield (bytes, path, offset, size, whole).

        First come the bytes; then, unless ``path`` is None, ``size`` bytes at ``offset`` of the file, which
        has no others if ``whole``. Everything is read twice: the first time checks it all and gathers lost
        content.
        """
        self._lost = {}
        for number, (kind, path, _, _, data) in enumerate(self._numbered()):
            if kind == b"O":
                self._lost.setdefault(path, []).append((number, data))
        for number, (kind, path, offset, size, data) in enumerate(self._numbered()):
            if kind == b"V":
                yield data, None, 0, 0, False
            elif kind in (b"C", b"S"):
                lost = self._find_lost(path, number)
                if lost is None:
                    yield b"", path, offset, size, kind == b"C"
                elif len(lost) < offset + size:
                    raise _damaged("lost content is too short")
                else:
                    yield lost[offset : offset + size], None, 0, 0, False

    def _find_lost(self, path: bytes, number: int) -> bytes | None:
        for at, data in self._lost.get(path, ()):
            if at > number:
                return data
        return None

    def _numbered(self) -> Iterator[tuple[bytes, bytes, int, int, bytes]]:
        take = _Inflated(self._fd, self._module).take
        total = 0
        while True:
            kind = take(1)
            path, offset, size, data = b"", 0, 0, b""
            if kind == b"V":
                (size,) = struct.unpack("<I", take(4))
                if size > 2 * MAX_LOST:
                    raise _damaged("a record is too long")
                data = take(size)
                total += size
            elif kind == b"C":
                length, size = struct.unpack("<HQ", take(10))
                path = take(length)
                total += size
            elif kind == b"S":
                length, offset, size = struct.unpack("<HQQ", take(18))
                path = take(length)
                total += size
            elif kind == b"O":
                length, size = struct.unpack("<HI", take(6))
                if size > MAX_LOST:
                    raise _damaged("a record is too long")
                path = take(length)
                data = take(size)
            elif kind == b"E":
                if struct.unpack("<Q", take(8))[0] != total:
                    raise _damaged("its sizes do not add up")
                take(-1)
                return
            else:
                raise _damaged("an unknown record")
            yield kind, path, offset, size, data


class _Inflated:
    """The records of a recipe, inflated from the file's beginning."""

    def __init__(self, fd: int, module: Any) -> None:
        self._fd = fd
        self._module = module
        self._at = len(MAGIC)
        magic = os.pread(fd, len(MAGIC), 0)
        if magic != MAGIC and _LATER.fullmatch(magic):
            raise StoreError(
                "a later version of usercontainerd has written the layer's recipe",
                hint="install the later version again",
            )
        if magic != MAGIC:
            raise _damaged("its beginning is not that of a recipe")
        self._member = module.decompressobj(wbits=31)
        self._input = b""
        self._buffer = b""
        self._start = 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes; with -1 make sure that nothing follows."""
        if count < 0:
            if self._start < len(self._buffer) or self._more() or self._member.unused_data:
                raise _damaged("something follows its end")
            return b""
        end = self._start + count
        if end > len(self._buffer):
            parts = [self._buffer[self._start :]]
            have = len(parts[0])
            while have < count:
                piece = self._more()
                if not piece:
                    raise _damaged("it ends too early")
                parts.append(piece)
                have += len(piece)
            self._buffer = b"".join(parts)
            self._start, end = 0, count
        data = self._buffer[self._start : end]
        self._start = end
        return data

    def _more(self) -> bytes:
        """The next piece; b"" at the end, which has been checked against the CRC then."""
        while not self._member.eof:
            if not self._input:
                self._input = os.pread(self._fd, _PIECE, self._at)
                self._at += len(self._input)
            try:
                output: bytes = self._member.decompress(self._input, _PIECE)
            except self._module.error as error:
                raise _damaged(str(error)) from None
            ended = not self._input
            self._input = self._member.unconsumed_tail
            if output:
                return output
            if ended:
                raise _damaged("it ends too early")
        return b""


def _damaged(what: str) -> StoreError:
    return StoreError(f"the layer's recipe is damaged: {what}", hint="pull the image again")
