"""The caller's terminal and the container's: what the one types, and what the other writes.

The container's is made by crun; we hold its master. While it is relayed the caller's terminal is raw: every key is the
container's, Ctrl-C included, and what a key means is up to the terminal inside.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16
_MOST_TYPED = 1 << 16  # bytes that wait for a container which does not read
END_OF_FILE = b"\x04"


class TerminalRelay:
    """Copies between the master and descriptors 0 and 1; with ``interactive`` what is typed, too."""

    def __init__(self, master: int, *, interactive: bool) -> None:
        self.master = master
        self._typed = bytearray()
        self._reads = interactive
        self._before: list[Any] | None = None
        self.is_hung_up = False  # nobody has the container's side open
        self.is_lost = False  # the caller's terminal is gone
        os.set_blocking(master, False)

    def enter(self) -> None:
        """Make the caller's terminal raw, if there is one and it is typed on."""
        if self._reads and os.isatty(0):
            self._before = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)

    def leave(self) -> None:
        """Have the caller's terminal as it was."""
        if self._before is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            except termios.error:
                pass  # it is gone
            self._before = None

    def resume(self) -> None:
        """After a stop: the shell has had the terminal in the meantime."""
        if self._before is not None:
            tty.setraw(0, termios.TCSADRAIN)
        self.resize()

    def resize(self) -> None:
        """Give the container's terminal the size of the caller's; the kernel tells its foreground processes."""
        for fd in (1, 0, 2):
            if os.isatty(fd):
                try:
                    size = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
                    fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
                except OSError:
                    pass
                return

    def plan_events(self) -> dict[int, int]:
        """What to wait for (poll(2)), by descriptor."""
        events: dict[int, int] = {}
        if not self.is_hung_up:
            events[self.master] = select.POLLIN | (select.POLLOUT if self._typed else 0)
        if self._reads and len(self._typed) < _MOST_TYPED:
            events[0] = select.POLLIN
        return events

    def handle(self, fd: int, events: int) -> None:
        """Do what poll(2) says can be done."""
        if fd == 0:
            self._read_typed()
            return
        if events & select.POLLOUT:
            self._write_typed()
        if events & ~select.POLLOUT:
            self._read_written()

    def drain(self) -> None:
        """Pass on what is left of a container that has ended."""
        self.is_hung_up = False
        while not self.is_hung_up and self._read_written():
            pass

    def _read_typed(self) -> None:
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            self.is_lost, self._reads = True, False
            return
        if not data:
            self._reads = False
            self.is_lost = os.isatty(0) or self._before is not None
            data = END_OF_FILE  # of a pipe or file: as if somebody had typed Ctrl-D
        self._typed += data
        self._write_typed()

    def _write_typed(self) -> None:
        try:
            written = os.write(self.master, self._typed)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            self.is_hung_up = True
            written = len(self._typed)
        del self._typed[:written]

    def _read_written(self) -> bool:
        """Pass on a piece; False if there is none now."""
        try:
            view = memoryview(os.read(self.master, _CHUNK))
        except OSError as error:
            self.is_hung_up = error.errno != errno.EAGAIN  # EIO: nobody has the other side open
            return False
        try:
            while view:
                view = view[os.write(1, view) :]
        except OSError:
            self.is_lost = True
            return False
        return True
