"""Messages to the service manager."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from usercontainerd.base.errors import HostError
from usercontainerd.kernel.notification import notify, notify_and_wait, one_line


@pytest.mark.parametrize("abstract", [False, True])
def test_message_arrives(tmp_path: Path, abstract: bool) -> None:
    address = f"@usercontainerd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        notify(address, "READY=1\nSTATUS=é\udcff")
        assert manager.recv(100) == "READY=1\nSTATUS=é?".encode()


def test_last_message_waits_until_it_was_read(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        sender = threading.Thread(target=notify_and_wait, args=(address, "STATUS=the end"))
        sender.start()
        assert manager.recv(100) == b"STATUS=the end"
        message, fds, _, _ = socket.recv_fds(manager, 100, 1)
        assert message == b"BARRIER=1"
        sender.join(0.1)
        assert sender.is_alive()
        os.close(fds[0])
        sender.join(5)
        assert not sender.is_alive()


def test_nobody_to_tell_and_nobody_there(tmp_path: Path) -> None:
    notify(None, "READY=1")
    notify_and_wait("", "READY=1")
    for address in (str(tmp_path / "nobody"), "neither"):
        with pytest.raises(HostError):
            notify_and_wait(address, "STATUS=x")


def test_one_line() -> None:
    assert one_line("a\nb\x1b[2J\u2028c") == "a b [2J c"
    assert len(one_line("x" * 1000)) == 400
