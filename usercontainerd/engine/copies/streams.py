"""Archives on their way between a container and elsewhere: what both ends of a copy have in common."""

from __future__ import annotations

import fcntl
import os
import resource

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.kernel.atomicfile import explain_write_error
from usercontainerd.kernel.trees import remove_entry
from usercontainerd.store.tarreader import TarReader
from usercontainerd.store.treewriter import TreeWriter, explain_write, make_temporary_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usercontainerd.engine.copies.paths import Target
    from usercontainerd.store.treewriter import Manner

PIECE = 1 << 18
PIPE_SIZE = 1 << 20
MAX_PADDING = 16 << 20  # bytes that may follow the end of an archive: tar rounds up to its records


class ArchiveSource:
    """An archive as it comes, for ``TarReader``."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer only at the end."""
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Yield the next ``count`` bytes in pieces as they come; fewer only at the end."""
        while count:
            if not self._piece:
                self._piece = memoryview(next(self._pieces, b""))
                if not self._piece:
                    return
            view, self._piece = self._piece[:count], self._piece[count:]
            count -= len(view)
            yield view


def open_pipe() -> tuple[int, int]:
    """A pipe for an archive: (reading end, writing end); larger than others, for fewer changes between both ends."""
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass  # over the user's share of pipe memory: it works with less
    return reader, writer


def read_pieces(fd: int, count: Callable[[int], object]) -> Iterator[bytes]:
    """Yield what comes from ``fd``; ``count`` is told how many bytes each time."""
    while data := os.read(fd, PIECE):
        count(len(data))
        yield data


def write_pieces(fd: int, data: bytes, count: Callable[[int], object]) -> None:
    """Write all of ``data``. Raises ``BrokenPipeError`` if nobody reads, ``StoreError`` if there is no room."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise explain_write_error(error, "the archive") from error
    count(len(data))


def write_target(target: Target, manner: Manner, pieces: Iterator[bytes]) -> list[str]:
    """Unpack an archive where it goes; a directory that is new gets its name when it is complete.

    Returns warnings. Raises as ``TreeWriter.write`` does.
    """
    staged = make_temporary_name() if target.is_new else None
    source = ArchiveSource(pieces)
    try:
        warnings = TreeWriter(target.at, manner, staged or target.name).write(TarReader(source))
        for _ in source.pieces(MAX_PADDING):
            pass  # what follows the end marks: who writes it shall not find nobody there
        if staged is not None and target.name is not None:
            os.rename(staged, target.name, src_dir_fd=target.at, dst_dir_fd=target.at)
            staged = None
        return warnings
    except InvalidFormat as error:
        text = error.what.replace("broken layer", "broken archive", 1)
        raise InvalidFormat(text, where=error.where, hint=error.hint) from error
    except OSError as error:
        raise explain_write(error, target.name or b".") from error
    finally:
        if staged is not None:
            remove_entry(target.at, os.fsdecode(staged))


def raise_file_limit() -> None:
    """As many open files as are allowed: there is one for each level of nesting."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
