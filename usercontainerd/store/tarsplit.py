"""Giving back the exact tar archive of a layer that other tools have unpacked: their tar-split file and the files.

containers/storage (Podman, Buildah, CRI-O) keeps beside each layer what tar-split (github.com/vbatts/tar-split) has
taken apart: lines of JSON, compressed, each either bytes of the archive as they were, or the name of a file whose
content comes there. Runs in a child of the worker with the layer as its root, as ``rebuild`` does for our own.
What it gives is compared with the diffID by the one who reads it.
"""

from __future__ import annotations

import binascii
import json
import os

from usercontainerd.base.errors import InvalidFormat, StoreError, UsercontainerError
from usercontainerd.store.inflate import inflate
from usercontainerd.store.rebuild import copy_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usercontainerd.store.inflate import Codecs

MAX_LINE = 8 << 20  # one holds no more than a few headers, with their extended attributes and long names
_FILE = 1
_SEGMENT = 2
_PIECE = 256 * 1024


def join_layer(directory: int, split: int, write: Callable[[bytes], object], codecs: Codecs) -> None:
    """Write the archive of the layer that is unpacked in ``directory``, which becomes the root directory.

    ``split`` is the open tar-split file. For a process of its own. Raises ``StoreError`` if the two do not fit.
    """
    os.fchdir(directory)
    os.chroot(".")
    buffer: list[bytes] = []
    size = 0
    for data, path, length in read_entries(lambda count: os.read(split, count), codecs):
        if path is None:
            buffer.append(data)
            size += len(data)
        elif length > _PIECE:
            write(b"".join(buffer))
            buffer.clear()
            size = 0
            copy_file(path, 0, length, True, write)
        else:
            copy_file(path, 0, length, True, buffer.append)
            size += length
        if size >= _PIECE:
            write(b"".join(buffer))
            buffer.clear()
            size = 0
    write(b"".join(buffer))


def read_entries(read: Callable[[int], bytes], codecs: Codecs) -> Iterator[tuple[bytes, bytes | None, int]]:
    """Yield (bytes, None, 0), and (b"", path, size) for the content of a file. Raises ``StoreError``."""
    try:
        for line in split_lines(inflate(read, codecs)):
            entry = json.loads(line)
            kind = entry["type"]
            if kind == _SEGMENT:
                yield binascii.a2b_base64(entry["payload"] or ""), None, 0
            elif kind == _FILE:
                size = entry.get("size", 0)
                if not isinstance(size, int) or size < 0:
                    raise _damaged()
                if size:
                    yield b"", _read_name(entry), size
            else:
                raise _damaged()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidFormat):
        raise _damaged() from None


def _read_name(entry: dict[str, str]) -> bytes:
    raw = entry.get("name_raw")  # of names that are not UTF-8
    name = binascii.a2b_base64(raw) if raw else entry["name"].encode()
    name = name.lstrip(b"/")
    if not name or b"\0" in name:
        raise _damaged()
    return name


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends. Raises ``StoreError`` for one that is too long."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line)
        if len(rest) > MAX_LINE:
            raise _damaged()
    if rest:
        yield rest


def _damaged() -> UsercontainerError:
    return StoreError("the layer's tar-split file is damaged", hint="pull the image again")
