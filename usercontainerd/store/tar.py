"""A tar reader for layers: ustar, base-256 numbers, GNU long names, PAX (POSIX.1-2001 pax, tar(5)).

Reads a stream once, front to back, and trusts nothing of it. Names are bytes throughout: a layer's encoding
is nobody's business. Where archivers disagree this one reads as Go's archive/tar does, since that is how the
image was most likely looked at before: a global PAX header is skipped, a regular file whose name ends in a
slash is a directory.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn, Protocol

    class Source(Protocol):
        """A stream of bytes that is read once."""

        def take(self, count: int) -> bytes:
            """Return the next ``count`` bytes, fewer only at the end."""

        def pieces(self, count: int) -> Iterator[memoryview]:
            """Yield the next ``count`` bytes in pieces as they come; fewer only at the end."""


BLOCK = 512
SMALL = 64 * 1024  # files up to here are read and written in one piece
MAX_SPECIAL = 1024 * 1024  # bytes of one PAX header or long name; Go has the same limit
MAX_XATTR = 65536  # XATTR_SIZE_MAX of the kernel

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
_OLD_REGULAR = b"\0"
_CONTIGUOUS = b"7"
_PAX = b"x"
_PAX_GLOBAL = b"g"
_GNU_LONG_NAME = b"L"
_GNU_LONG_LINK = b"K"
_GNU_SPARSE = b"S"
_KNOWN = frozenset((REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_XATTR_PREFIX = b"SCHILY.xattr."
_ENDS = b"\0 "


class Entry:
    """One member of an archive.

    ``mtime`` is in nanoseconds; ``size`` counts the bytes that follow the header.
    """

    __slots__ = (
        "gid",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        kind: bytes = REGULAR,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        linkname: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        self.name = name
        self.type = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime = mtime
        self.linkname = linkname
        self.major = major
        self.minor = minor
        self.xattrs = xattrs or {}


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
        while True:
            self._skip_content()
            header = self._read_header()
            if header is None:
                return None
            entry = _parse_header(header)
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            kind = entry.type
            if kind == _PAX:
                pax = parse_pax(self._read_special(entry.size))
            elif kind == _PAX_GLOBAL:
                self._read_special(entry.size)
            elif kind == _GNU_LONG_NAME:
                long_name = self._read_special(entry.size).split(b"\0", 1)[0]
            elif kind == _GNU_LONG_LINK:
                long_link = self._read_special(entry.size).split(b"\0", 1)[0]
            else:
                break
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        if pax:
            _apply_pax(entry, pax)
        self._finish(entry)
        self.entries += 1
        return entry

    def content(self) -> Iterator[memoryview]:
        """Yield the content of the entry read last. An archive that ends in the middle of it is an error."""
        for piece in self._source.pieces(self._left):
            self._left -= len(piece)
            yield piece
        if self._left:
            _fail("the archive ends in the middle of a file")

    def small_content(self) -> bytes | None:
        """Return the whole content of the entry read last if it is small, else None (then use ``content``)."""
        size = self._left
        if size > SMALL:
            return None
        data = self._source.take(size + self._padding)
        if len(data) < size:
            _fail("the archive ends in the middle of a file")
        self._left = 0
        self._padding = max(0, size + self._padding - len(data))
        if self._record is not None and len(data) > size:
            self._record(data[size:])
        return data[:size]

    def _finish(self, entry: Entry) -> None:
        """Settle type and size, which decide where the next header is."""
        kind = entry.type
        if kind == _GNU_SPARSE or entry.name.startswith(b"\0sparse"):
            _fail(f"{printable_name(entry.name)} is a sparse file in a form that is not supported")
        if kind in (_OLD_REGULAR, _CONTIGUOUS):
            entry.type = kind = REGULAR
        if kind not in _KNOWN:
            _fail(f"{printable_name(entry.name)} is of the unknown type {kind!r}")
        if kind == REGULAR and entry.name.endswith(b"/"):
            entry.type = kind = DIRECTORY
        if kind != REGULAR:
            # Go: only regular files have content, whatever the size field of a link or directory says.
            entry.size = 0
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _skip_content(self) -> None:
        if self._left:
            for piece in self._source.pieces(self._left):
                self._left -= len(piece)
                if self._record is not None:
                    self._record(bytes(piece))
        if self._left or (self._padding and len(self._take(self._padding)) < self._padding):
            _fail("the archive ends in the middle of a file")
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
            _fail("the archive ends in the middle of a header")
        if header.count(0) == BLOCK:
            second = self._take(BLOCK)
            if second and second.count(0) != len(second):
                _fail("a header follows the end-of-archive mark")
            return None
        return header

    def _read_special(self, size: int) -> bytes:
        if size > MAX_SPECIAL:
            _fail(f"an extended header of {size} bytes is longer than the {MAX_SPECIAL} allowed")
        data = self._take(size)
        if len(data) < size:
            _fail("the archive ends in the middle of an extended header")
        self._left = 0
        return data


def printable_name(name: bytes) -> str:
    """A name for messages, shortened."""
    text = name.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 200 else f"{text[:200]}…")


def _fail(what: str) -> NoReturn:
    raise InvalidFormat(f"broken layer: {what}")


def _string(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes, what: str) -> int:
    if field[-1] in _ENDS and (digits := field[:-1]).isdigit():
        try:
            return int(digits, 8)  # what nearly every field looks like
        except ValueError:
            _fail(f"the {what} field is not an octal number: {field!r}")
    if field[0] & 0x80:  # GNU base-256: two's complement in the remaining bits
        value = int.from_bytes(field, "big") & ((1 << (len(field) * 8 - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (len(field) * 8 - 1)
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    # A NUL or space ends the number; what follows it is padding.
    text = text.split(b"\0", 1)[0].split(b" ", 1)[0]
    if text.strip(b"01234567"):
        _fail(f"the {what} field is not an octal number: {field!r}")
    return int(text, 8)


def _parse_header(header: bytes) -> Entry:
    field = header[148:156]
    stored = _number(field, "checksum")
    total = sum(header) - sum(field) + 8 * ord(" ")
    # Old archivers summed signed characters.
    if stored != total and stored != total - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        _fail("the checksum of a header is wrong")
    name = _string(header[0:100])
    magic = header[257:265]
    major = minor = 0
    if magic == b"ustar\x0000":
        prefix = _string(header[345:500])
        if prefix:
            name = prefix + b"/" + name
    kind = header[156:157]
    if kind in (CHARACTER, BLOCK_DEVICE) and magic[:5] == b"ustar":
        major = _number(header[329:337], "major")
        minor = _number(header[337:345], "minor")
    size = _number(header[124:136], "size")
    if size < 0:
        _fail("a size is negative")
    return Entry(
        name,
        kind,
        mode=_number(header[100:108], "mode") & 0o7777,
        uid=_number(header[108:116], "uid"),
        gid=_number(header[116:124], "gid"),
        size=size,
        mtime=_number(header[136:148], "mtime") * 1_000_000_000,
        linkname=_string(header[157:257]),
        major=major,
        minor=minor,
    )


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Parse the records ``LENGTH KEY=VALUE\\n`` of a PAX header; a later record of a key wins."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            _fail("a PAX record has no length")
        end = at + int(digits)
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n":
            _fail("the length of a PAX record is wrong")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            _fail("a PAX record has no key")
        records[key] = value
        at = end
    return records


def _apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path":
            # An empty value takes the record back (POSIX).
            entry.name = value or entry.name
        elif key == b"linkpath":
            entry.linkname = value or entry.linkname
        elif key == b"size":
            entry.size = _pax_integer(key, value) if value else entry.size
        elif key == b"uid":
            entry.uid = _pax_integer(key, value) if value else entry.uid
        elif key == b"gid":
            entry.gid = _pax_integer(key, value) if value else entry.gid
        elif key == b"mtime":
            entry.mtime = parse_pax_time(value) if value else entry.mtime
        elif key.startswith(_XATTR_PREFIX):
            name = key[len(_XATTR_PREFIX) :]
            if not name or len(name) > 255 or b"\0" in name or len(value) > MAX_XATTR:
                _fail(f"{printable_name(entry.name)} has an impossible extended attribute")
            entry.xattrs[name] = value
        elif key.startswith(b"GNU.sparse."):
            _fail(f"{printable_name(entry.name)} is a sparse file in a form that is not supported")
    if b"\0" in entry.name or b"\0" in entry.linkname:
        _fail(f"the name {printable_name(entry.name)} holds a NUL character")


def _pax_integer(key: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        _fail(f"the PAX record {key.decode('ascii', 'replace')} is not a number")
    return int(value)


def parse_pax_time(value: bytes) -> int:
    """Return a PAX time (``-12.345``) in nanoseconds; finer digits are cut off."""
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > 15 or (fraction and not fraction.isdigit()):
        _fail("a PAX time is not a number")
    return sign * (int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0"))
