"""Keeps the caller's terminal out of a container: what a command writes there, and reads, goes through pipes.

A descriptor of a terminal gives more than the right to write to it. Whoever has one can open it anew for reading and
take what the user types, long after the command itself has ended. (``-t`` gives the command a terminal of its own.)
The pipes' other ends are a small process's::

    command  ---pipe--->  relay  --->  terminal
             <--pipe----         <---             (with -i)
"""

from __future__ import annotations

import os

_CHUNK = 1 << 16


class Relay:
    """Pipes in place of those of descriptors 0, 1 and 2 that are terminals, and the process that copies."""

    def __init__(self, *, stdin: bool) -> None:
        self._inside: list[tuple[int, int]] = []  # (descriptor of the command, end of a pipe)
        pairs: list[tuple[int, int]] = []  # (from, to)
        for fd in (0, 1, 2) if stdin else (1, 2):
            if os.isatty(fd):
                reader, writer = os.pipe()
                self._inside.append((fd, writer if fd else reader))
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
        ready = [fd for fd, _ in poller.poll(0 if stopping else None) if fd in sinks or fd == stop]
        if stopping and not any(fd > 2 and fd in sinks for fd in ready):
            return
        for fd in ready:
            if fd == stop:
                stopping = True
                poller.unregister(stop)
            elif not (stopping and fd == 0) and not _pass_on(fd, sinks[fd]):
                poller.unregister(fd)
                if fd == 0:
                    os.close(sinks[0])  # the command sees the end of its input
                del sinks[fd]


def _pass_on(source: int, sink: int) -> bool:
    """Copy what is there; False when one of the two has ended."""
    try:
        view = memoryview(os.read(source, _CHUNK))
        more = bool(view)
        while view:
            view = view[os.write(sink, view) :]
    except OSError:
        return False
    return more
