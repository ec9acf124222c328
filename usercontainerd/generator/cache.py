"""The units of the last run: when nothing has changed, they are written again without reading any definition.

One file of fields that end in NUL, which occurs in no path and no unit: it is read by one ``split``. It is
only ever ours: another owner, or others' right to write, and it is as if it were not there; so is one that
is damaged.
"""

from __future__ import annotations

import os

from usercontainerd.base.names import is_container_name, is_template_name
from usercontainerd.generator.entry import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "usercontainerd-units 2"
LARGEST = 64 * 1024 * 1024
_FIELDS = 6
_END = "end"


class Cached:
    """``basis`` is what all entries depend on, ``state`` all definitions; an empty one matches nothing."""

    __slots__ = ("basis", "entries", "state")

    def __init__(self, basis: str, state: str, entries: Sequence[Entry]) -> None:
        self.basis = basis
        self.state = state
        self.entries = tuple(entries)


def read_cache(path: str) -> Cached | None:
    """Return what the file holds, or None for whatever reason."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.getuid() or status.st_mode & 0o177077 != 0o100000 or status.st_size > LARGEST:
            return None
        data = os.read(fd, status.st_size + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return parse_cache(data)


def parse_cache(data: bytes) -> Cached | None:
    """Return what ``data`` means, None if it is not whole."""
    try:
        fields = data.decode().split("\0")
    except UnicodeDecodeError:
        return None
    if len(fields) < 5 or fields[0] != FORMAT or fields[-2:] != [_END, ""]:
        return None
    body = fields[3:-2]
    if len(body) % _FIELDS:
        return None
    entries = []
    for start in range(0, len(body), _FIELDS):
        name, key, text, links, log, timer = body[start : start + _FIELDS]
        entry = Entry(name, key, text, _split(links), _split(log), timer=timer)
        if not (is_container_name(name) or is_template_name(name) or not name) or not all(
            map(is_link, entry.links)
        ):
            return None
        entries.append(entry)
    return Cached(fields[1], fields[2], entries)


def render_cache(cached: Cached) -> bytes | None:
    """Return the file's bytes, None if something in it cannot be kept."""
    fields = [FORMAT, cached.basis, cached.state]
    for entry in cached.entries:
        links, log = "\n".join(entry.links), "\n".join(entry.log)
        fields += (entry.name, entry.key, entry.text, links, log, entry.timer)
    fields += (_END, "")
    text = "\0".join(fields)
    if text.count("\0") != len(fields) - 1:
        return None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None  # a path that is not UTF-8


def is_link(link: str) -> bool:
    """Tell whether ``link`` stays below the generator's directory: ``NAME`` or ``DIRECTORY/NAME``."""
    parts = link.split("/")
    return len(parts) <= 2 and all(part and not part.startswith(".") for part in parts)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()
