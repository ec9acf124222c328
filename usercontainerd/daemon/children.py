"""Programs of our own that the daemon runs for its clients: started, watched, ended with whoever wanted them.

Whatever takes long or touches namespaces is a process of its own, exec'd: a crash stays in it, cancelling is a
signal, and the daemon's own threads and descriptors are no trouble to it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal

from usercontainerd.kernel.spawning import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GRACE = 5.0  # seconds between asking a child to end and killing it


class Child:
    """One process: ``ended`` is its exit status, negative for a signal. ``fd_limit`` is its RLIMIT_NOFILE."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int,
        stdout: int,
        stderr: int | None = None,
        fd_limit: tuple[int, int],
    ) -> None:
        self.pid = spawn(
            arguments,
            environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            reset_signals=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP),
        )
        # Not yet reaped, so it is there, if only as a zombie.
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, fd_limit)
        self._fd = os.pidfd_open(self.pid)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._fd, self._reap)
        self._killer: asyncio.TimerHandle | None = None

    def _reap(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._killer is not None:
            self._killer.cancel()
        self.ended.set_result(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))

    @property
    def is_alive(self) -> bool:
        """True until it has ended."""
        return not self.ended.done()

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGTERM)
            if self._killer is None:
                self._killer = self._loop.call_later(GRACE, self.kill)

    def kill(self) -> None:
        """Kill it."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGKILL)


def start_into_pipe(start: Callable[[int], Child]) -> tuple[Child, int]:
    """Start a child with the writing end of a new pipe; return it and the reading end."""
    reader, writer = os.pipe()
    try:
        return start(writer), reader
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)


async def read_lines(fd: int, take: Callable[[bytes], None], *, limit: int = 1 << 20) -> None:
    """Hand each line that comes from the pipe ``fd`` to ``take``, until its end; closes it.

    A line longer than ``limit`` bytes ends it: the other side is no program of ours.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        while line := await reader.readline():
            take(line)
    except ValueError:
        pass
    finally:
        transport.close()
