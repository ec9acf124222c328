"""Connects our terminal with one inside a machine."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_TIOCGPTPEER = 0x5441


def open_terminal(init: int) -> tuple[int, int]:
    """A new pseudo-terminal of the machine's own devpts, so that tty(1) works in there: (ours, theirs)."""
    master = os.open(f"{Path('/proc')}/{init}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(
        master, termios.TIOCSPTLCK if hasattr(termios, "TIOCSPTLCK") else 0x40045431, struct.pack("i", 0)
    )
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    return master, slave


def relay_terminal(master: int) -> None:
    """Pass bytes both ways until the machine's side closes."""
    with _raw_mode(sys.stdin.fileno()), _window_size_followed(master):
        sources = [master, sys.stdin.fileno()]
        while True:
            readable, _, _ = select.select(sources, [], [])
            if master in readable:
                try:
                    data = os.read(master, 65536)
                except OSError:  # EIO: the last process on it has gone
                    data = b""
                if not data:
                    return
                _write_all(sys.stdout.fileno(), data)
            if sys.stdin.fileno() in readable:
                data = os.read(sys.stdin.fileno(), 65536)
                if data:
                    _write_all(master, data)
                else:
                    _write_all(master, b"\x04")
                    sources.remove(sys.stdin.fileno())


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def _raw_mode(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _window_size_followed(master: int) -> Iterator[None]:
    def copy_size(_number: int = 0, _frame: FrameType | None = None) -> None:
        with suppress(OSError):
            size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    before = signal.signal(signal.SIGWINCH, copy_size)
    copy_size()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
