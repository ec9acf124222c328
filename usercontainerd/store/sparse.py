"""Sparse files in tar archives: GNU's old format and its three in PAX (GNU tar manual, "Storing Sparse Files"). Pure.

Holes take no room in the archive and none on disk. How many segments a file may have is bounded, how long it
may become is for the one who unpacks it.
"""

from __future__ import annotations

from usercontainerd.store.tar import BLOCK, MAX_FILE, MAX_SPECIAL, Entry, fail, parse_number, printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.store.tar import Segments

    SparseMap = tuple[int, Segments]  # the file's size, and where its bytes are

MAX_SEGMENTS = 100_000
_PAIR = 24
_MAX_DIGITS = 19


def parse_old_map(header: bytes, take_block: Callable[[], bytes]) -> SparseMap:
    """Read the map of the old format from a header and the blocks that follow it."""
    segments = _parse_pairs(header[386:482])
    more = header[482]
    while more:
        block = take_block()
        if len(block) < BLOCK:
            fail("the archive ends in the middle of the map of a sparse file")
        segments += _parse_pairs(block[:504])
        more = block[504]
        if len(segments) > MAX_SEGMENTS:
            fail("a sparse file has too many segments")
    return parse_number(header[483:495], "real size"), segments


def _parse_pairs(data: bytes) -> list[tuple[int, int]]:
    pairs = []
    for at in range(0, len(data), _PAIR):
        if not data[at]:
            break
        pairs.append(
            (
                parse_number(data[at : at + 12], "sparse offset"),
                parse_number(data[at + 12 : at + _PAIR], "sparse length"),
            )
        )
    return pairs


class SparseRecords:
    """What PAX records say of a sparse file.

    ``segments`` is None if it has no map at all, or one before its content (``map_in_content``, format 1.0).
    """

    __slots__ = ("map_in_content", "name", "real_size", "segments")

    def __init__(self, records: dict[bytes, bytes]) -> None:
        major, minor = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
        if (major, minor) not in ((b"", b""), (b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
            fail("a sparse file is in a format of the future")
        self.map_in_content = major == b"1"
        self.name = records.get(b"GNU.sparse.name", b"")
        if b"\0" in self.name:
            fail(f"the name {printable_name(self.name)} holds a NUL character")
        size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if not size:
            fail("a sparse file has no size")
        self.real_size = _parse_decimal(size)
        self.segments: Segments | None = None
        if not self.map_in_content and (text := records.get(b"GNU.sparse.map")):
            self.segments = _pair_up([_parse_decimal(number) for number in text.split(b",")])


class MapLines:
    """The map of format 1.0: decimal numbers, one a line, padded to a block; the first says how many pairs."""

    def __init__(self) -> None:
        self._data = b""
        self._wanted = 1  # lines
        self.complete = False

    def add(self, block: bytes) -> None:
        """Take the next block of the content."""
        self._data += block
        if len(self._data) > MAX_SPECIAL:
            fail("a sparse file has too many segments")
        have = self._data.count(b"\n")
        if self._wanted == 1 and have:
            count = _parse_decimal(self._data.partition(b"\n")[0])
            if count > MAX_SEGMENTS:
                fail("a sparse file has too many segments")
            self._wanted = 1 + 2 * count
        self.complete = have >= self._wanted

    def segments(self) -> Segments:
        """The pairs, once complete."""
        return _pair_up([_parse_decimal(n) for n in self._data.split(b"\n", self._wanted)[1 : self._wanted]])


def set_sparse(entry: Entry, sparse: SparseMap, stored: int) -> None:
    """Give an entry its segments, which take up ``stored`` bytes of the archive."""
    entry.real_size, segments = sparse
    end = 0
    if not 0 <= entry.real_size <= MAX_FILE:
        fail(f"the size of {printable_name(entry.name)} is negative or beyond all bounds")
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > entry.real_size:
            fail(f"the segments of {printable_name(entry.name)} overlap or lie beyond its end")
        end = offset + length
    if sum(length for _, length in segments) != stored:
        fail(f"the segments of {printable_name(entry.name)} do not add up to its content")
    entry.segments = [segment for segment in segments if segment[1]]


def _pair_up(numbers: list[int]) -> Segments:
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SEGMENTS:
        fail("the map of a sparse file has too many numbers or an odd one")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _parse_decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        fail("the map of a sparse file holds something other than numbers")
    return int(text)
