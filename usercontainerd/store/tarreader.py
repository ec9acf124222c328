"""Reading the archive of a layer: a stream, once, front to back, of which nothing is trusted.

Where archivers disagree this one reads as Go's archive/tar does, since that is how the image was most likely
looked at before: a global PAX header is skipped, and only a regular file of the oldest kind is a directory if its
name ends in a slash.
"""

from __future__ import annotations

from usercontainerd.store import tar
from usercontainerd.store.sparse import MapLines, SparseRecords, parse_old_map, set_sparse
from usercontainerd.store.tar import (
    BLOCK,
    MAX_SPECIAL,
    SMALL,
    Entry,
    apply_pax,
    fail,
    parse_header,
    parse_pax,
    printable_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from usercontainerd.store.sparse import SparseMap

    class Source(Protocol):
        """A stream of bytes that is read once."""

        def take(self, count: int) -> bytes:
            """Return the next ``count`` bytes, fewer only at the end."""

        def pieces(self, count: int) -> Iterator[memoryview]:
            """Yield the next ``count`` bytes in pieces as they come; fewer only at the end."""


class TarReader:
    """Reads entries one after the other; content that was not asked for is skipped.

    Raises ``InvalidFormat`` for a broken archive.
    """

    def __init__(self, source: Source, record: Callable[[bytes], None] | None = None) -> None:
        """``record`` gets all bytes, in order, but those that ``content`` and ``small_content`` return."""
        self._source = source
        self._record = record
        self._left = 0  # bytes of content not read yet
        self._padding = 0
        self.entries = 0

    def read_entry(self) -> Entry | None:
        """Return the next entry, None at the end of the archive."""
        pax: dict[bytes, bytes] = {}
        long_name: bytes | None = None
        long_link: bytes | None = None
        old_map: SparseMap | None = None
        while True:
            self._skip_content()
            header = self._read_header()
            if header is None:
                return None
            entry = parse_header(header)
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            kind = entry.type
            if kind == tar.REGULAR:
                break
            if kind == tar.PAX:
                pax = parse_pax(self._read_special(entry.size))
            elif kind == tar.PAX_GLOBAL:
                self._read_special(entry.size)
            elif kind == tar.GNU_LONG_NAME:
                long_name = self._read_special(entry.size).split(b"\0", 1)[0]
            elif kind == tar.GNU_LONG_LINK:
                long_link = self._read_special(entry.size).split(b"\0", 1)[0]
            else:
                if kind == tar.GNU_SPARSE:
                    old_map = parse_old_map(header, lambda: self._take(BLOCK))
                break
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        if pax:
            apply_pax(entry, pax)
        self._finish(entry)
        if old_map is not None:
            set_sparse(entry, old_map, entry.size)
        elif b"GNU.sparse.map" in pax or b"GNU.sparse.major" in pax:
            self._read_pax_map(entry, pax)
        self.entries += 1
        return entry

    def content(self, count: int | None = None) -> Iterator[memoryview]:
        """Yield the content of the entry read last, or its next ``count`` bytes.

        An archive that ends in the middle of it is an error.
        """
        stop = 0 if count is None else self._left - count
        for piece in self._source.pieces(self._left - stop):
            self._left -= len(piece)
            yield piece
        if self._left > stop:
            fail("the archive ends in the middle of a file")

    def small_content(self) -> bytes | None:
        """Return the whole content of the entry read last if it is small, else None (then use ``content``)."""
        size = self._left
        if size > SMALL:
            return None
        data = self._source.take(size + self._padding)
        if len(data) < size:
            fail("the archive ends in the middle of a file")
        self._left = 0
        self._padding = max(0, size + self._padding - len(data))
        if self._record is not None and len(data) > size:
            self._record(data[size:])
        return data[:size]

    def _finish(self, entry: Entry) -> None:
        """Settle type and size, which decide where the next header is."""
        kind = entry.type
        if kind in (tar.OLD_REGULAR, tar.CONTIGUOUS, tar.GNU_SPARSE):
            entry.type = tar.REGULAR
        elif kind not in tar.KNOWN:
            fail(f"{printable_name(entry.name)} is of the unknown type {kind!r}")
        elif kind != tar.REGULAR:
            # Go: only regular files have content, whatever the size field of a link or directory says.
            entry.size = 0
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        if kind == tar.OLD_REGULAR and entry.name.endswith(b"/"):
            entry.type = tar.DIRECTORY

    def _read_pax_map(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        if entry.type != tar.REGULAR:
            fail(f"{printable_name(entry.name)} is sparse, but not a regular file")
        sparse = SparseRecords(pax)
        if sparse.name:
            entry.name = sparse.name
        if sparse.map_in_content:
            lines = MapLines()
            while not lines.complete:
                block = self._take(min(BLOCK, self._left))
                if len(block) < BLOCK:
                    fail("the map of a sparse file is cut off")
                self._left -= BLOCK
                lines.add(block)
            set_sparse(entry, (sparse.real_size, lines.segments()), self._left)
        elif sparse.segments is not None:
            set_sparse(entry, (sparse.real_size, sparse.segments), self._left)

    def _skip_content(self) -> None:
        if self._left:
            for piece in self._source.pieces(self._left):
                self._left -= len(piece)
                if self._record is not None:
                    self._record(bytes(piece))
        if self._left or (self._padding and len(self._take(self._padding)) < self._padding):
            fail("the archive ends in the middle of a file")
        self._padding = 0

    def _take(self, count: int) -> bytes:
        data = self._source.take(count)
        if self._record is not None:
            self._record(data)
        return data

    def _read_header(self) -> bytes | None:
        header = self._take(BLOCK)
        if not header:
            return None  # no end-of-archive mark: tolerated at a boundary, as by Go and GNU tar
        if len(header) < BLOCK:
            fail("the archive ends in the middle of a header")
        if header.count(0) == BLOCK:
            second = self._take(BLOCK)
            if second and second.count(0) != len(second):
                fail("a header follows the end-of-archive mark")
            return None
        return header

    def _read_special(self, size: int) -> bytes:
        if size > MAX_SPECIAL:
            fail(f"an extended header of {size} bytes is longer than the {MAX_SPECIAL} allowed")
        data = self._take(size)
        if len(data) < size:
            fail("the archive ends in the middle of an extended header")
        self._left = 0
        return data
