"""``usercontainer cp``."""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.engine.copies.copying import ContainerPath

CP = Verb(
    "cp",
    "CONTAINER:PATH|PATH|- CONTAINER:PATH|PATH|-",
    "Copy files into a container, out of it, or from one to another",
    (
        Option("-a, --archive", "keep the owners that the files have, by their numbers"),
        Option("-L, --follow-link", "without effect: a symlink that is named is followed anyway"),
        Option("--overwrite", "let directories be replaced by something else, and the other way round"),
        Option("-q, --quiet", "show no progress"),
    ),
    fewest=2,
    most=2,
    details="The container may run or not. A file keeps its name in a directory that is there, else it gets the name\n"
    "PATH. A directory is copied into one that is there, else it becomes PATH; with DIRECTORY/. it is what is in it\n"
    'that is copied. "-" is a tar archive, from standard input or to standard output. In the container all belongs to\n'
    "its root without -a; on the host, to you.",
)
INTERVAL = 0.2  # seconds between two updates
SILENT = 1.0  # seconds; what takes less needs no progress


def run_cp(call: Call) -> int:
    """Copy."""
    from usercontainerd.engine.copies.copying import (
        Copying,
        copy_archive_in,
        copy_archive_out,
        copy_between,
        copy_in,
        copy_out,
    )

    catch_termination("the copy was cancelled")
    options = call.options
    source, destination = (find_end(call, word) for word in call.words)
    progress = Progress(shown=os.isatty(2) and not options.flag("quiet"))
    how = Copying(
        exact=options.flag("archive"),
        overwrite=options.flag("overwrite"),
        report=progress.take if progress.shown else None,
    )
    context = call.context()
    try:
        if not isinstance(source, str) and not isinstance(destination, str):
            warnings = copy_between(context, source, destination, how)
        elif not isinstance(source, str):
            warnings = (
                copy_archive_out(context, source, 1, how)
                if destination == "-"
                else copy_out(context, source, str(destination), how)
            )
        elif not isinstance(destination, str):
            if source == "-" and os.isatty(0):
                raise InvalidArgument("standard input is a terminal", hint="pass it a tar archive")
            warnings = (
                copy_archive_in(context, destination, 0, how)
                if source == "-"
                else copy_in(context, destination, source, how)
            )
        else:
            raise InvalidArgument(
                "neither of the two is a container's", hint="write CONTAINER:PATH for what is in a container"
            )
    finally:
        progress.finish()
    for warning in warnings:
        write_error(f"Warning: {warning}\n")
    return 0


def find_end(call: Call, word: str) -> ContainerPath | str:
    """A path in a container, or one of the host. Raises ``NoSuchContainer``."""
    from usercontainerd.engine.containers.lookup import resolve_name
    from usercontainerd.engine.copies.copying import ContainerPath

    name, path = split_end(word)
    if name is None:
        return path
    if not path:
        raise InvalidArgument("there is no path behind the colon", where=word)
    return ContainerPath(resolve_name(call.paths, name), path)


def split_end(word: str) -> tuple[str | None, str]:
    """Split ``CONTAINER:PATH``; a path of the host starts with a slash or a dot, or has no colon. Pure."""
    name, colon, path = word.partition(":")
    if not colon or not name or word.startswith(("/", ".")):
        return None, word
    return name, path


class Progress:
    """How many bytes have passed, on a terminal, of what takes a while."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown
        self._last = time.monotonic() + SILENT - INTERVAL
        self._width = 0

    def take(self, done: int) -> None:
        """Take one report: bytes so far."""
        now = time.monotonic()
        if now - self._last < INTERVAL:
            return
        self._last = now
        from usercontainerd.base.sizes import format_size

        text = f"Copied {format_size(done)}"
        write_error(f"\r{text.ljust(self._width)}")
        self._width = len(text)

    def finish(self) -> None:
        """Take it away."""
        if self._width:
            write_error(f"\r{' ' * self._width}\r")
            self._width = 0


VERBS = {"cp": (CP, run_cp)}
