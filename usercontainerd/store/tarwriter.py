"""Writing tar archives: ustar, with PAX headers for what that cannot say (POSIX.1-2001 pax). Pure.

The same entries always make the same bytes.
"""

from __future__ import annotations

from usercontainerd.store import tar
from usercontainerd.store.tar import BLOCK, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from usercontainerd.store.tar import Segments

END = bytes(2 * BLOCK)
_SECOND = 1_000_000_000
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777  # size and time
_NAME = 100
_PREFIX = 155


def build_header(entry: Entry, extra: Mapping[bytes, bytes] | None = None) -> bytes:
    """Return the header of an entry, with a PAX header before it if need be, or if it has ``extra`` records."""
    records: dict[bytes, bytes] = dict(extra or {})
    prefix, name = _split_name(entry.name)
    if name is None:
        records[b"path"] = entry.name
        name = entry.name[:_NAME]
    if len(entry.linkname) > _NAME:
        records[b"linkpath"] = entry.linkname
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number > _MAX_ID:
            records[key] = b"%d" % number
    if entry.size > _MAX_NUMBER:
        records[b"size"] = b"%d" % entry.size
    seconds, fraction = divmod(entry.mtime, _SECOND)
    if fraction or not 0 <= seconds <= _MAX_NUMBER:
        records[b"mtime"] = render_pax_time(entry.mtime)
        seconds = max(0, min(seconds, _MAX_NUMBER))
    for key, value in entry.xattrs.items():
        records[b"SCHILY.xattr." + key] = value
    header = _build_ustar(
        prefix,
        name,
        entry.type,
        mode=entry.mode,
        uid=entry.uid if entry.uid <= _MAX_ID else 0,
        gid=entry.gid if entry.gid <= _MAX_ID else 0,
        size=entry.size if entry.size <= _MAX_NUMBER else 0,
        seconds=seconds,
        linkname=entry.linkname[:_NAME],
    )
    if not records:
        return header
    data = render_pax(records)
    base = entry.name.rstrip(b"/").rpartition(b"/")[2]
    extended = _build_ustar(b"", b"PaxHeaders.0/" + base[:80], b"x", mode=0o644, size=len(data))
    return extended + data + bytes(-len(data) % BLOCK) + header


def build_sparse_header(entry: Entry, segments: Segments, size: int) -> bytes:
    """Return what comes before the content of a file of ``size`` bytes that has bytes only in ``segments``.

    GNU's format 1.0 in PAX (GNU tar manual, "PAX 1"): the map is the first part of the content.
    """
    numbers = [len(segments), *(number for segment in segments for number in segment)]
    text = b"".join(b"%d\n" % number for number in numbers)
    text += bytes(-len(text) % BLOCK)
    entry.size = len(text) + sum(length for _, length in segments)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": entry.name,
        b"GNU.sparse.realsize": b"%d" % size,
    }
    return build_header(entry, records) + text


def render_pax(records: Mapping[bytes, bytes]) -> bytes:
    """Render PAX records, sorted by key."""
    parts = []
    for key, value in sorted(records.items()):
        body = b" %s=%s\n" % (key, value)
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        parts.append(b"%d%s" % (length, body))
    return b"".join(parts)


def render_pax_time(time: int) -> bytes:
    """Render nanoseconds as PAX does: ``-1.5``."""
    seconds, fraction = divmod(abs(time), _SECOND)
    text = b"%d.%09d" % (seconds, fraction) if fraction else b"%d" % seconds
    return (b"-" if time < 0 else b"") + (text.rstrip(b"0") if fraction else text)


def _split_name(name: bytes) -> tuple[bytes, bytes | None]:
    """Return prefix and name as ustar wants them; None instead of the name if it does not fit."""
    if len(name) <= _NAME:
        return b"", name
    at = name.find(b"/", len(name) - _NAME - 1, _PREFIX + 1)
    if at <= 0 or at + 1 == len(name):
        return b"", None
    return name[:at], name[at + 1 :]


def _build_ustar(
    prefix: bytes,
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    seconds: int = 0,
    linkname: bytes = b"",
) -> bytes:
    header = bytearray(
        b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%s"
        % (name.ljust(_NAME, b"\0"), mode, uid, gid, size, seconds, kind, linkname.ljust(_NAME, b"\0"))
    )
    header += b"ustar\x0000" + bytes(64)
    header += b"0000000\x000000000\0" if kind in (tar.CHARACTER, tar.BLOCK_DEVICE) else bytes(16)
    header += prefix.ljust(_PREFIX, b"\0") + bytes(12)
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
