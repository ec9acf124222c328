"""Writing images to files: a tar archive as a stream, or a directory. The same images make the same bytes.

Both take pieces by name, each once. A piece whose name is not known before all of it has been made (a layer that is
compressed on its way out is called by its digest) waits in a file without a name, or under a temporary one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from usercontainerd.base.errors import HostError, InvalidArgument, StoreError
from usercontainerd.engine.archives.input import open_nameless, write_all
from usercontainerd.kernel.atomicfile import explain_write_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from usercontainerd.oci.manifest import Descriptor

    class Output(Protocol):
        """Where the parts of images go. A name that is there already is left as it is."""

        def add(self, name: str, data: bytes) -> None:
            """Write a small piece."""

        def add_stream(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
            """Write a piece of ``size`` bytes."""

        def add_made(self, make: Make, name: Callable[[Descriptor], str]) -> Descriptor:
            """Let ``make`` write a piece, and call it as ``name`` says once it is known."""

    Make = Callable[[Callable[[bytes], object]], Descriptor]

BLOCK = 512
PIECE = 1024 * 1024


class TarOutput:
    """A tar archive, handed to ``write`` front to back; ``directory`` is where pieces may wait."""

    def __init__(self, write: Callable[[bytes], object], directory: str) -> None:
        self._write = write
        self._directory = directory
        self._names: set[str] = set()

    def add(self, name: str, data: bytes) -> None:
        """Write a small piece."""
        self.add_stream(name, len(data), (data,))

    def add_stream(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a piece of ``size`` bytes. Raises ``StoreError`` if it turns out to have others."""
        if name in self._names:
            return
        self._make_parents(name)
        self._names.add(name)
        self._write(build_header(name, size))
        left = size
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            self._write(piece)
        if left:
            raise StoreError(f"{name} does not have the {size} bytes that it should have")
        self._write(bytes(-size % BLOCK))

    def _make_parents(self, name: str) -> None:
        # Skopeo cannot unpack an archive without them, unless it is root.
        parts = name.split("/")
        for depth in range(1, len(parts)):
            directory = "/".join(parts[:depth]) + "/"
            if directory not in self._names:
                self._names.add(directory)
                self._write(build_header(directory, 0))

    def add_made(self, make: Make, name: Callable[[Descriptor], str]) -> Descriptor:
        """Let ``make`` write a piece, then write it under its name."""
        spool = open_nameless(self._directory)
        try:
            made = make(lambda data: write_all(spool, data, self._directory))
            self.add_stream(name(made), made.size, read_pieces(spool))
        finally:
            os.close(spool)
        return made

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))


def build_header(name: str, size: int) -> bytes:
    """The tar header of a file that anybody may read, of no time and nobody in particular. Pure.

    A name that ends with a slash is a directory's.
    """
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
        info.mode = 0o755
    return info.tobuf(tarfile.GNU_FORMAT)


def read_pieces(fd: int) -> Iterator[bytes]:
    """Yield what a file holds, from its beginning."""
    at = 0
    while data := os.pread(fd, PIECE, at):
        at += len(data)
        yield data


class DirectoryOutput:
    """A directory that is there already; a file in it is either whole or not there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, name: str, data: bytes) -> None:
        """Write a small file, replacing one of that name."""
        with self._writing() as (write, keep):
            write(data)
            keep(name)

    def add_stream(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a file of ``size`` bytes, unless there is one of that name and size."""
        try:
            if os.lstat(f"{self.path}/{name}").st_size == size:
                return
        except FileNotFoundError:
            pass
        with self._writing() as (write, keep):
            done = 0
            for piece in pieces:
                write(piece)
                done += len(piece)
            if done != size:
                raise StoreError(f"{name} does not have the {size} bytes that it should have")
            keep(name)

    def add_made(self, make: Make, name: Callable[[Descriptor], str]) -> Descriptor:
        """Let ``make`` write a file, then give it its name."""
        with self._writing() as (write, keep):
            made = make(write)
            keep(name(made))
        return made

    @contextmanager
    def _writing(self) -> Iterator[tuple[Callable[[bytes], None], Callable[[str], None]]]:
        temporary = f"{self.path}/.new-{os.getpid()}-{os.urandom(6).hex()}"

        def keep(name: str) -> None:
            try:
                os.makedirs(os.path.dirname(f"{self.path}/{name}"), exist_ok=True)
                os.rename(temporary, f"{self.path}/{name}")
            except OSError as error:
                raise explain_write_error(error, f"{self.path}/{name}") from error

        with open_temporary(temporary) as write:
            yield write, keep


@contextmanager
def open_temporary(path: str) -> Iterator[Callable[[bytes], None]]:
    """Make a new file for as long as the block lasts; under another name by then, it stays."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise explain_write_error(error, path) from error
    try:
        yield lambda data: write_out(fd, data, path)
    finally:
        os.close(fd)
        try:
            os.unlink(path)
        except OSError:
            pass  # it has its name


def write_out(fd: int, data: bytes, where: str) -> None:
    """Write all of ``data``. Raises ``StoreError``, and ``BrokenPipeError`` when nobody reads any more."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise explain_write_error(error, where) from error


@contextmanager
def writing_file(path: str | None, *, stdout: int = 1) -> Iterator[Callable[[bytes], None]]:
    """Write a file that replaces ``path`` when the block ends well; None, or something that is no file, is written to.

    Raises ``InvalidArgument`` for a terminal, which binary data would put out of order.
    """
    if path is not None and (os.path.isfile(path) or not os.path.exists(path)):
        directory, base = os.path.split(os.path.realpath(path))
        temporary = f"{directory}/.{base[:60]}-{os.getpid()}-{os.urandom(6).hex()}"
        with open_temporary(temporary) as write:
            yield write
            try:
                os.rename(temporary, f"{directory}/{base}")
            except OSError as error:
                raise explain_write_error(error, path) from error
        return
    fd = stdout
    if path is not None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidArgument(f"cannot write: {error.strerror}", where=path) from error
    try:
        if os.isatty(fd):
            raise InvalidArgument(
                "an archive is nothing for a terminal", hint="use -o FILE, or redirect the output"
            )
        yield lambda data: write_out(fd, data, path or "standard output")
    finally:
        if path is not None:
            os.close(fd)


@contextmanager
def writing_directory(path: str, mark: str) -> Iterator[DirectoryOutput]:
    """Make a directory that appears when the block ends well.

    One that is there must be empty, or have the file ``mark``: then it is replaced. Raises ``InvalidArgument``.
    """
    top = os.path.realpath(path)
    if os.path.lexists(top):
        check_replaceable(top, mark)
    temporary = f"{os.path.dirname(top)}/.{os.path.basename(top)[:60]}-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        os.mkdir(temporary)
    except OSError as error:
        raise explain_write_error(error, temporary) from error
    try:
        yield DirectoryOutput(temporary)
        replace_directory(temporary, top)
    finally:
        import shutil

        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(path: str, mark: str) -> None:
    """Raise ``InvalidArgument`` unless ``path`` is an empty directory or one of those that we write."""
    try:
        names = os.listdir(path)
    except OSError as error:
        raise InvalidArgument(f"cannot be a directory for an image: {error.strerror}", where=path) from error
    if names and mark not in names:
        raise InvalidArgument("there is something else in this directory", where=path)


def replace_directory(new: str, path: str) -> None:
    """Give ``new`` the name ``path``; what had it goes."""
    old = f"{new}.old"
    try:
        try:
            os.rename(new, path)  # there is none, or an empty one
            return
        except OSError:
            os.rename(path, old)
        os.rename(new, path)
    except OSError as error:
        raise HostError(f"cannot be replaced: {error.strerror}", where=path) from error
    import shutil

    shutil.rmtree(old, ignore_errors=True)
