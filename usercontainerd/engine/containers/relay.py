"""Keeps the caller's terminal and files out of a container: what a command writes there, and reads, goes through pipes.

A descriptor gives more than the right to read or to write: whoever has one can open it anew (/proc/self/fd). From a
terminal that takes what the user types, long after the command itself has ended; a file that was to be read can be
written, for its owner is root in the container; and crun gives what it starts a command with to the command's user
(fchown(2)). Only the caller's own pipes are passed on as they are (``kernel/descriptors.py``); ``-t`` gives the command
a terminal of its own. The other ends of the pipes here are a small process's::

    command  ---pipe--->  relay  --->  terminal, file, socket
             <--pipe----         <---                          (with -i)
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK = 1 << 16
_ROOM = 4096  # bytes that a pipe has room for when poll(2) says that it has any (pipe(7), PIPE_BUF)


class Relay:
    """Pipes in place of the descriptors ``fds`` (of 0, 1 and 2), and the process that copies."""

    def __init__(self, fds: Iterable[int]) -> None:
        self._inside: list[tuple[int, int]] = []  # (descriptor of the command, end of a pipe)
        pairs: list[tuple[int, int]] = []  # (from, to)
        for fd in fds:
            reader, writer = os.pipe()
            end = writer if fd else reader
            os.fchmod(end, 0o666)
            self._inside.append((fd, end))
            pairs.append((reader, fd) if fd else (fd, writer))
        stop, self._stop = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._stop)
                self.leave()
                _copy(pairs, stop)
            finally:
                os._exit(0)
        for fd in (stop, *(end for pair in pairs for end in pair)):
            if fd > 2:
                os.close(fd)

    @property
    def ends(self) -> dict[int, int]:
        """The command's end for each descriptor that is replaced."""
        return dict(self._inside)

    def enter(self) -> None:
        """Make the pipes this process's descriptors: for the command."""
        for fd, end in self._inside:
            os.dup2(end, fd)

    def leave(self) -> None:
        """Close the command's ends: for every other process."""
        for _, end in self._inside:
            os.close(end)

    def finish(self) -> None:
        """Pass on what the command has written so far, and end: what it left behind is not waited for."""
        os.close(self._stop)
        os.waitpid(self._pid, 0)


def _copy(pairs: list[tuple[int, int]], stop: int) -> None:
    import select

    poller = select.poll()
    sinks = dict(pairs)
    for fd in (*sinks, stop):
        poller.register(fd, select.POLLIN)
    stopping = False
    while True:
        ready = [fd for fd, _ in poller.poll(0 if stopping else None)]
        if stopping and not any(fd > 2 and fd in sinks for fd in ready):
            return
        for fd in ready:
            if fd == stop:
                stopping = True
                poller.unregister(stop)
            elif fd == 0:
                # Only into room that is there: a command that waits for us to take its output would take no input.
                poller.unregister(0)
                poller.register(sinks[0], select.POLLOUT)
            elif fd == sinks.get(0):
                poller.unregister(fd)
                if _pass_on(0, fd, _ROOM):
                    poller.register(0, select.POLLIN)
                else:
                    os.close(fd)  # the command sees the end of its input
                    del sinks[0]
            elif not _pass_on(fd, sinks[fd], _CHUNK):
                poller.unregister(fd)
                os.close(fd)  # the command sees that nobody takes its output
                del sinks[fd]


def _pass_on(source: int, sink: int, limit: int) -> bool:
    """Copy what is there; False when one of the two has ended."""
    try:
        view = memoryview(os.read(source, limit))
        more = bool(view)
        while view:
            view = view[os.write(sink, view) :]
    except OSError:
        return False
    return more
