"""Giving back the exact tar archive of an unpacked layer, from its recipe and its files.

Runs in a child of the worker, inside the user namespace (where the layer's owners can be read whatever the
modes are), with ``diff/`` as its root. What it gives is compared with the diffID by the one who reads it.
"""

from __future__ import annotations

import os
import stat

from usercontainerd.base.errors import StoreError
from usercontainerd.store.recipe import NAME, RecipeReader
from usercontainerd.store.tar import printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PIECE = 256 * 1024
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PULL_AGAIN = "remove the image and pull it again"


def rebuild_layer(directory: int, write: Callable[[bytes], object], module: Any) -> None:
    """Write the archive of the layer whose directory is open as ``directory``.

    ``module`` inflates. ``diff`` becomes the root directory: for a process of its own. Raises ``StoreError``
    if the layer's files are not what they were.
    """
    try:
        recipe = os.open(NAME, _FILE, dir_fd=directory)
    except FileNotFoundError:
        raise _missing() from None
    if os.fstat(recipe).st_size == 0:
        raise _missing()
    os.fchdir(os.open("diff", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))
    os.chroot(".")
    buffer: list[bytes] = []
    size = 0
    for data, path, offset, length, whole in RecipeReader(recipe, module).read():
        if path is not None:
            if length > _PIECE:
                write(b"".join(buffer))
                buffer.clear()
                size = 0
                copy_file(path, offset, length, whole, write)
                continue
            copy_file(path, offset, length, whole, buffer.append)
        else:
            buffer.append(data)
            length = len(data)  # noqa: PLW2901
        size += length
        if size >= _PIECE:
            write(b"".join(buffer))
            buffer.clear()
            size = 0
    write(b"".join(buffer))


def _missing() -> StoreError:
    return StoreError(
        "the layer's archive cannot be made again: it was unpacked without a record of it", hint=PULL_AGAIN
    )


def copy_file(path: bytes, offset: int, size: int, whole: bool, write: Callable[[bytes], object]) -> None:
    """Hand ``size`` bytes of a file to ``write``; it must have no others if ``whole``. Raises ``StoreError``."""
    try:
        fd = os.open(path, _FILE)
    except OSError as error:
        raise _changed(path, error.strerror or "") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _changed(path, "it is no regular file")
        if status.st_size < offset + size or (whole and status.st_size != size):
            raise _changed(path, f"it has {status.st_size} bytes")
        while size:
            piece = os.pread(fd, min(size, _PIECE), offset)
            if not piece:
                raise _changed(path, "it became shorter")
            write(piece)
            size -= len(piece)
            offset += len(piece)
    finally:
        os.close(fd)


def _changed(path: bytes, why: str) -> StoreError:
    return StoreError(
        f"the layer was changed on disk: {printable_name(path)} is not what was unpacked: {why}",
        hint=PULL_AGAIN,
    )
