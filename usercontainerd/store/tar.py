"""The tar format as layers have it: ustar, base-256 numbers, PAX (POSIX.1-2001 pax, tar(5)). Pure.

Names are bytes throughout: a layer's encoding is nobody's business. Every fault is an ``InvalidFormat``.
"""

from __future__ import annotations

import re
import zlib

from usercontainerd.base.errors import InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    Segments = Sequence[tuple[int, int]]

BLOCK = 512
SMALL = 64 * 1024  # files up to here are read and written in one piece
MAX_SPECIAL = 1024 * 1024  # bytes of one PAX header or long name; Go has the same limit
MAX_FILE = (1 << 63) - 1  # bytes of one file, for any system
MAX_XATTR = 65536  # XATTR_SIZE_MAX of the kernel

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
OLD_REGULAR = b"\0"
CONTIGUOUS = b"7"
PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
GNU_SPARSE = b"S"
KNOWN = frozenset((REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_XATTR_PREFIX = b"SCHILY.xattr."
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_ENDS = b"\0 "
# Mode, owner, group, size, time and checksum as nearly every archiver writes them.
_USUAL = re.compile(
    rb"([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{11})[\0 ]([0-7]{11})[\0 ]([0-7]{6})\0 ", re.DOTALL
)


class Entry:
    """One member of an archive.

    ``mtime`` is in nanoseconds; ``size`` counts the bytes of content in the archive. A sparse file has
    ``segments`` of (offset, length) that these bytes fill one after the other, and ``real_size``.
    """

    __slots__ = (
        "gid",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "real_size",
        "segments",
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
        self.segments: Segments | None = None
        self.real_size = 0


def printable_name(name: bytes) -> str:
    """A name for messages, shortened."""
    text = name.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 200 else f"{text[:200]}…")


def fail(what: str) -> NoReturn:
    """Raise the ``InvalidFormat`` of a broken archive."""
    raise InvalidFormat(f"broken layer: {what}")


def _string(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def parse_number(field: bytes, what: str) -> int:
    """Parse a number of a header, octal or GNU's base-256."""
    if field[-1] in _ENDS and (digits := field[:-1]).isdigit():
        try:
            return int(digits, 8)  # what nearly every field looks like
        except ValueError:
            fail(f"the {what} field is not an octal number: {field!r}")
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
        fail(f"the {what} field is not an octal number: {field!r}")
    return int(text, 8)


def parse_header(header: bytes) -> Entry:
    """Parse one block of 512 bytes, which is not all zeros."""
    usual = _USUAL.match(header, 100)
    if usual is not None:
        mode, uid, gid, size, seconds, stored = [int(digits, 8) for digits in usual.groups()]
        _check_sum(header, stored)
    else:
        _check_sum(header, parse_number(header[148:156], "checksum"))
        mode = parse_number(header[100:108], "mode")
        uid = parse_number(header[108:116], "uid")
        gid = parse_number(header[116:124], "gid")
        size = parse_number(header[124:136], "size")
        seconds = parse_number(header[136:148], "mtime")
        if not 0 <= size <= MAX_FILE:
            fail("a size is negative or beyond all bounds")
    name = _string(header[:100])
    magic = header[257:265]
    major = minor = 0
    if header[345] and magic == b"ustar\x0000":
        name = _string(header[345:500]) + b"/" + name
    kind = header[156:157]
    if kind in (CHARACTER, BLOCK_DEVICE) and magic[:5] == b"ustar":
        major = parse_number(header[329:337], "major")
        minor = parse_number(header[337:345], "minor")
    return Entry(
        name,
        kind,
        mode=mode & 0o7777,
        uid=uid,
        gid=gid,
        size=size,
        mtime=seconds * 1_000_000_000,
        linkname=_string(header[157:257]) if header[157] else b"",
        major=major,
        minor=minor,
    )


def _check_sum(header: bytes, stored: int) -> None:
    field = sum(header[148:156])
    # The lower half of an Adler-32 is one more than the sum, modulo 65521: much faster than sum().
    total = (zlib.adler32(header) & 0xFFFF) - 1 - field + 8 * ord(" ")
    if stored == total:
        return
    total = sum(header) - field + 8 * ord(" ")
    # Old archivers summed signed characters.
    if stored != total and stored != total - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        fail("the checksum of a header is wrong")


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Parse the records ``LENGTH KEY=VALUE\\n`` of a PAX header; a later record of a key wins.

    Only the pairs of GNU's sparse format 0.0 come again and again; they are put together as format 0.1 has them.
    """
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            fail("a PAX record has no length")
        end = at + int(digits)
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n":
            fail("the length of a PAX record is wrong")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            fail("a PAX record has no key")
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(pairs) % 2] or not value.isdigit():
                fail("the map of a sparse file is out of order")
            pairs.append(value)
        else:
            records[key] = value
        at = end
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records


def apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    """Let the records of a PAX header overrule what the header itself says."""
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
                fail(f"{printable_name(entry.name)} has an impossible extended attribute")
            entry.xattrs[name] = value
    if b"\0" in entry.name or b"\0" in entry.linkname:
        fail(f"the name {printable_name(entry.name)} holds a NUL character")


def _pax_integer(key: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 19 or int(value) > MAX_FILE:
        fail(f"the PAX record {key.decode('ascii', 'replace')} is not a number")
    return int(value)


def parse_pax_time(value: bytes) -> int:
    """Return a PAX time (``-12.345``) in nanoseconds; finer digits are cut off."""
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > 15 or (fraction and not fraction.isdigit()):
        fail("a PAX time is not a number")
    return sign * (int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0"))
