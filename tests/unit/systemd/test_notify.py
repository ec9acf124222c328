from __future__ import annotations

import array
import os
import socket
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument, SystemdError
from usercontainerd.systemd.notify import notify, render_fields


@pytest.mark.parametrize("abstract", [False, True])
def test_message_and_descriptors_arrive(tmp_path: Path, abstract: bool) -> None:
    name = f"usercontainerd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (tmp_path / "f").open("w+") as file:
        manager.bind(f"\0{name}" if abstract else str(tmp_path / "notify"))
        notify(f"@{name}" if abstract else str(tmp_path / "notify"), "MAINPID=7\nREADY=1", (file.fileno(),))
        data, ancillary, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(4))
        assert data == b"MAINPID=7\nREADY=1"
        received = array.array("i", ancillary[0][2])[0]
        assert os.fstat(received).st_ino == os.fstat(file.fileno()).st_ino
        os.close(received)


def test_nobody_listens() -> None:
    notify("", "READY=1")


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(SystemdError, match="notify"):
        notify(str(tmp_path / "none"), b"READY=1")
    with pytest.raises(InvalidArgument):
        notify("vsock:2:1234", "READY=1")


def test_a_value_cannot_add_a_field() -> None:
    assert render_fields(STATUS="pulling\nMAINPID=1\r\n x", READY=1) == "STATUS=pulling MAINPID=1 x\nREADY=1"
