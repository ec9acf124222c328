"""Directories for an overlay mount, named so that neither their number nor what is in their paths can matter.

The option string of overlayfs is one page, and commas and colons are its syntax (overlayfs.rst).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def open_directory(path: str) -> int:
    """Open a directory to be named by ``link_directories``. Raises ``OSError``."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def link_directories(fds: Sequence[int]) -> str:
    """Make a symlink to each in the working directory; return their names as ``lowerdir=`` takes them.

    They are open, so what has been mounted over their paths since does not hide them.
    """
    for index, fd in enumerate(fds):
        os.symlink(f"/proc/self/fd/{fd}", str(index))
    return ":".join(map(str, range(len(fds))))
