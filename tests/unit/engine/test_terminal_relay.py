"""The caller's terminal and the container's."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

from usercontainerd.engine.containers.terminal_relay import TerminalRelay
from usercontainerd.kernel.descriptors import find_unfit

TOP = Path(__file__).resolve().parents[3]


def test_size_and_modes() -> None:
    """In a process of its own, whose descriptors 0 and 1 are a terminal."""
    outer, inner = os.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    before = termios.tcgetattr(inner)
    script = (
        "import fcntl, os, termios, tty\n"
        "from usercontainerd.engine.containers.terminal_relay import TerminalRelay\n"
        "master, slave = os.openpty()\n"
        "relay = TerminalRelay(master, interactive=True)\n"
        "relay.resize()\n"
        "relay.enter()\n"
        "raw = not termios.tcgetattr(0)[3] & termios.ICANON\n"
        "tty.setraw(slave)\n"
        "os.write(slave, b'from the container')\n"
        "relay.handle(master, 1)\n"
        "relay.leave()\n"
        "os.write(2, repr((raw, fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))[:4])).encode())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], stdin=inner, stdout=inner, stderr=subprocess.PIPE, check=True, cwd=TOP,
        timeout=30,
    )  # fmt: skip
    assert result.stderr.decode() == repr((True, struct.pack("HH", 33, 99)))
    assert os.read(outer, 100) == b"from the container"
    assert termios.tcgetattr(inner) == before
    os.close(outer)
    os.close(inner)


def test_who_does_not_read_is_not_waited_for() -> None:
    master, slave = os.openpty()
    relay = TerminalRelay(master, interactive=False)
    relay._typed += b"x" * (1 << 20)
    relay._write_typed()
    assert relay._typed and relay.plan_events()[master] & 4  # POLLOUT
    os.close(slave)
    relay.drain()
    assert relay.is_hung_up and master not in relay.plan_events()
    os.close(master)


def test_only_pipes_without_a_name_are_passed_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    reader, writer = os.pipe()
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    master, slave = os.openpty()
    assert find_unfit((reader, writer, fifo, file, null, slave)) == (fifo, file, slave)
    assert os.fstat(writer).st_mode & 0o777 == 0o666
    assert os.fstat(fifo).st_mode & 0o777 == os.fstat(file).st_mode & 0o777 == 0o600
    for fd in (reader, writer, fifo, file, null, master, slave):
        os.close(fd)
    assert find_unfit((reader,)) == ()
