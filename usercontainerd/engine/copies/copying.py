"""Use case: files into a container, out of it, or from one to another: ``cp``.

Between both ends goes a tar archive. The container's end is a process inside its namespaces (``program``), the
host's is this one: what it reads and writes is the caller's own.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from contextlib import ExitStack, contextmanager

from usercontainerd.base.errors import (
    HostError,
    InvalidArgument,
    RuntimeFailure,
    UsercontainerError,
    make_error,
)
from usercontainerd.engine.copies.paths import (
    STREAM,
    Source,
    find_place,
    open_target,
    parse_source,
)
from usercontainerd.engine.copies.root import Root, find_root
from usercontainerd.engine.copies.streams import (
    open_pipe,
    raise_file_limit,
    read_pieces,
    write_pieces,
    write_target,
)
from usercontainerd.kernel.spawning import spawn
from usercontainerd.store.archive import TreeArchiver
from usercontainerd.store.overlay import MergedDirectory
from usercontainerd.store.treewriter import Manner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from usercontainerd.engine.context import Context

    Report = Callable[[int], object]  # told the bytes that have passed, in all

TITLE = "item"  # of what is copied, on its way: the other end has the name that it gets
PATIENCE = 5.0  # seconds for a cancelled process to clean up


class ContainerPath:
    """A path in the container ``name``; a relative one is from its root, as docker has it."""

    __slots__ = ("name", "path")

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path if path.startswith("/") else f"/{path}"


class Copying:
    """How to copy: ``exact`` keeps owners, ``overwrite`` replaces directories by files and the other way round."""

    __slots__ = ("exact", "overwrite", "report")

    def __init__(self, *, exact: bool = False, overwrite: bool = False, report: Report | None = None) -> None:
        self.exact = exact
        self.overwrite = overwrite
        self.report = report


class CopyProcess:
    """The container's end of a copy; a context manager, which ends what is not finished."""

    def __init__(self, context: Context, request: dict[str, Any], archive: int) -> None:
        self._name = request["name"]
        reader, writer = os.pipe()
        archive = os.dup(archive)  # it may be 0, whose place the answers take
        try:
            self._pid = spawn(
                [context.programs.copy_files, json.dumps(request)],
                {**dict(context.environment), "LC_ALL": "C.UTF-8"},
                stdin=writer,
                stdout=archive,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            os.close(archive)
        self._words = open(reader, encoding="utf-8")  # noqa: SIM115 - closed with the process

    def __enter__(self) -> CopyProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_source(self) -> Source:
        """What the path in the container stands for. Raises what the process raised."""
        word = self._read_word()
        return parse_source(word["found"])

    def finish(self, report: Report | None = None) -> list[str]:
        """Wait for the outcome; return warnings. Raises what the process raised."""
        while True:
            word = self._read_word()
            if "warnings" in word:
                self._wait()
                return [str(text) for text in word["warnings"]]
            if report is not None and "progress" in word:
                report(int(word["progress"]))

    def _read_word(self) -> dict[str, Any]:
        line = self._words.readline()
        if not line.endswith("\n"):
            raise RuntimeFailure(
                "the process that works on the container's files died",
                hint="was it killed, or out of memory?",
            )
        word: dict[str, Any] = json.loads(line)
        if "broken" in word:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if "error" in word:
            error = make_error(word)
            if error.where is not None and error.where.startswith("/"):
                error.where = f"{self._name}:{error.where}"
            raise error
        return word

    def _wait(self) -> None:
        os.waitpid(self._pid, 0)
        self._pid = 0

    def close(self) -> None:
        """End it if it has not ended; it removes what is half-made."""
        if self._pid:
            self._kill(signal.SIGTERM)
            end = time.monotonic() + PATIENCE
            while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > end:
                    self._kill(signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    break
                time.sleep(0.002)
            self._pid = 0
        self._words.close()

    def _kill(self, number: int) -> None:
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            pass


def _describe_end(where: ContainerPath, root: Root, *, told: bool) -> dict[str, object]:
    """What every request says: the container's end of the copy."""
    return {
        "name": where.name,
        "path": where.path,
        "root": root.stopped and root.stopped.as_dict(),
        "progress": told,
    }


@contextmanager
def start_reading(
    context: Context, where: ContainerPath, archive: int, *, inside: bool, told: bool
) -> Iterator[CopyProcess]:
    """Have an archive of what is at ``where`` written to ``archive``.

    ``inside`` is for archives that nobody else reads; ``told`` asks for progress.
    """
    with ExitStack() as stack:
        root = find_root(context, where.name, stack, writing=False)
        request = {
            **_describe_end(where, root, told=told),
            "do": "out",
            "sparse": inside,
            "title": TITLE if inside else "",
        }
        yield stack.enter_context(CopyProcess(context, request, archive))


@contextmanager
def start_writing(
    context: Context, where: ContainerPath, archive: int, source: Source, how: Copying, *, told: bool
) -> Iterator[CopyProcess]:
    """Have the archive of ``source`` that comes from ``archive`` unpacked to ``where``."""
    with ExitStack() as stack:
        root = find_root(context, where.name, stack, writing=True)
        request = {
            **_describe_end(where, root, told=told),
            "do": "in",
            "source": source.as_dict(),
            "exact": how.exact,
            "overwrite": how.overwrite,
            "sealed": root.sealed,
            "hint": root.hint,
        }
        yield stack.enter_context(CopyProcess(context, request, archive))


class Counter:
    """Counts bytes for a report."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._done = 0

    def __call__(self, count: int) -> None:
        """Take note of ``count`` more bytes."""
        self._done += count
        if self._report is not None:
            self._report(self._done)


def copy_in(context: Context, where: ContainerPath, host: str, how: Copying) -> list[str]:
    """Copy ``host`` into a container; return warnings.

    Raises ``NoSuchFile``, ``InvalidArgument``, ``AlreadyExists``, ``NoSuchContainer``, ``StoreError``, ``HostError``…
    """
    raise_file_limit()
    place = find_place(host)
    reader, writer = open_pipe()
    try:
        with start_writing(context, where, reader, place.describe_source(), how, told=False) as process:
            os.close(reader)
            reader = -1
            counter = Counter(how.report)
            archiver = TreeArchiver(
                lambda data: write_pieces(writer, data, counter), whiteouts=False, sparse=True
            )
            try:
                warnings = archiver.write_item(MergedDirectory([place.parent]), place.name, TITLE.encode())
            except BrokenPipeError:
                warnings = []  # the process has the reason
            # Not earlier: what ends in the middle must not look as if it were complete.
            os.close(writer)
            writer = -1
            return [*warnings, *process.finish()]
    except OSError as error:
        raise explain_host(error, host) from error
    finally:
        place.close()
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)


def copy_out(context: Context, where: ContainerPath, host: str, how: Copying) -> list[str]:
    """Copy from a container to ``host``; return warnings. Everything is the caller's then.

    Set-user-ID bits are left out: those of a container's root would be the caller's. Raises as ``copy_in`` does.
    """
    raise_file_limit()
    reader, writer = open_pipe()
    try:
        with start_reading(context, where, writer, inside=True, told=False) as process:
            os.close(writer)
            writer = -1
            warnings: list[str] = []

            def read_all() -> Iterator[bytes]:
                yield from read_pieces(reader, Counter(how.report))
                # Before anything gets its name: an archive may also end because its writer has failed.
                warnings.extend(process.finish())

            source = process.read_source()
            place = find_place(host)
            try:
                target = open_target(source, place, overwrite=how.overwrite)
            finally:
                place.close()
            try:
                manner = Manner(exact=how.exact, overwrite=how.overwrite, modes=0o1777)
                return [*write_target(target, manner, read_all()), *warnings]
            finally:
                target.close()
    except OSError as error:
        raise explain_host(error, host) from error
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)


def copy_between(context: Context, where: ContainerPath, other: ContainerPath, how: Copying) -> list[str]:
    """Copy from a container to ``other``; return warnings."""
    reader, writer = open_pipe()
    try:
        with start_reading(context, where, writer, inside=True, told=False) as sender:
            source = sender.read_source()
            with start_writing(context, other, reader, source, how, told=how.report is not None) as receiver:
                os.close(reader)
                reader = -1
                try:
                    warnings = sender.finish()
                except (RuntimeFailure, BrokenPipeError) as error:
                    os.close(writer)
                    writer = -1
                    receiver.finish()
                    raise error
                os.close(writer)
                writer = -1
                return [*warnings, *receiver.finish(how.report)]
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)


def copy_archive_in(context: Context, where: ContainerPath, archive: int, how: Copying) -> list[str]:
    """Unpack the archive that comes from ``archive``, perhaps compressed, into a directory of a container."""
    with start_writing(context, where, archive, Source(STREAM), how, told=True) as process:
        return process.finish(how.report)


def copy_archive_out(context: Context, where: ContainerPath, archive: int, how: Copying) -> list[str]:
    """Write an archive of what a container has at ``where`` to ``archive``; return warnings."""
    if os.isatty(archive):
        raise InvalidArgument("an archive is nothing for a terminal", hint="redirect the output")
    with start_reading(context, where, archive, inside=False, told=True) as process:
        process.read_source()
        return process.finish(how.report)


def explain_host(error: OSError, host: str) -> UsercontainerError:
    """A failure of the host's end that nothing has explained yet."""
    return HostError(f"cannot copy: {error.strerror}", where=error.filename or host)
