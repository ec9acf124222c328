"""A container's standard descriptors, where they are not simply the unit's: a caller's own, a terminal, an open input.

For the launcher, which loads it where there is a caller, or the plan wants it. A terminal is made by crun in the
container's own /dev/pts; crun sends its other end, the master, to a socket of ours. That goes to the caller, or to
cat(1), which copies what the container writes to the journal; nothing is ever typed there.
"""

from __future__ import annotations

import os
import select

from usercontainerd.base.errors import RuntimeFailure
from usercontainerd.runtime.caller import CONSOLE, FAILED, MASTER, SOCKET, STREAMS, TERMINAL, Listener, call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from usercontainerd.runtime.plan import LaunchPlan

STDIN = "stdin"  # in the bundle, for a moment


class Stdio:
    """``streams`` are the descriptors to put in the place of 0, 1 and 2."""

    def __init__(self, bundle: str, plan: LaunchPlan) -> None:
        self.bundle = bundle
        self.caller = call(bundle) if os.path.lexists(f"{bundle}/{SOCKET}") else None
        if self.caller is not None and not self.caller.is_own():
            self.caller.close()
            self.caller = None
        self.console = Listener(bundle, CONSOLE) if plan.terminal else None
        self.streams: dict[int, int] = {}
        if self.console is not None:
            if self.caller is not None:
                self.caller.send(TERMINAL)
            return
        if self.caller is not None:
            self._borrow()
        if plan.interactive and 0 not in self.streams:
            self.streams[0] = open_endless(bundle)

    def _borrow(self) -> None:
        """Take what the caller lends."""
        if self.caller is None or not self.caller.send(STREAMS):
            return
        packet, fds = self.caller.receive()
        targets = [int(word) for word in packet.split() if word in (b"0", b"1", b"2")]
        self.streams = dict(zip(targets, fds, strict=False))

    @property
    def arguments(self) -> tuple[str, ...]:
        """What ``crun create`` needs beside the rest."""
        return () if self.console is None else (f"--console-socket={self.console.path}",)

    def hand_over(self, child: int, environment: Mapping[str, str]) -> None:
        """Pass the terminal on, once crun has made it; ``child`` is a pipe that ends with whoever runs crun.

        Returns at once where there is none, or where crun has failed: that half has the reason.
        """
        if self.console is None:
            return
        poller = select.poll()
        poller.register(self.console, select.POLLIN)
        poller.register(child, select.POLLIN)
        if self.console.fileno() not in [fd for fd, _ in poller.poll()]:
            return
        line = self.console.accept()
        _, fds = line.receive()
        line.close()
        self.console.close()
        if not fds:
            raise RuntimeFailure("crun has made no terminal", where=self.bundle)
        # An answer, so that the command's first look finds the size of the caller's terminal.
        if self.caller is not None and self.caller.send(MASTER, fds) and self.caller.receive()[0]:
            os.close(fds[0])
            return
        from usercontainerd.runtime.copier import start_terminal_copier

        start_terminal_copier(self.bundle, environment, fds[0])

    def tell_failure(self, status: int, text: str) -> None:
        """Tell the caller why the container does not start."""
        if self.caller is not None:
            self.caller.send(FAILED + f" {status} {text}".encode("utf-8", "replace"))


def open_endless(bundle: str) -> int:
    """Return an input from which nothing comes, and which does not end: a FIFO that its reader has open for writing."""
    path = f"{bundle}/{STDIN}"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.unlink(path)
    return fd
