"""What a command and the processes of a unit say to each other, over real sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from usercontainerd.base.errors import Busy
from usercontainerd.kernel.idmap import IdMap
from usercontainerd.runtime.caller import ENDED, SOCKET, Listener, call, render_end
from usercontainerd.runtime.plan import LaunchPlan
from usercontainerd.runtime.stdio import Stdio, open_endless
from usercontainerd.runtime.summary import parse_end


def test_descriptors_arrive_by_a_path_of_any_length(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 200)
    directory.mkdir()
    listener = Listener(str(directory), SOCKET)
    there = call(str(directory))
    assert there is not None and there.is_own()
    here = listener.accept()
    reader, writer = os.pipe()
    assert here.send(b"0 2", (reader, writer))
    packet, fds = there.receive()
    assert packet == b"0 2" and len(fds) == 2 and not any(map(os.get_inheritable, fds))
    os.write(fds[1], b"through")
    assert os.read(reader, 10) == b"through"
    there.close()
    assert here.receive() == (b"", [])
    assert not here.send(b"gone")
    here.close()
    listener.close()
    assert list(directory.iterdir()) == []
    for fd in (reader, writer, *fds):
        os.close(fd)


def test_one_command_at_a_time_and_none_that_is_dead(tmp_path: Path) -> None:
    assert call(str(tmp_path)) is None
    listener = Listener(str(tmp_path), SOCKET)
    with pytest.raises(Busy):
        Listener(str(tmp_path), SOCKET)
    os.rename(listener.path, tmp_path / "kept")
    listener.close()
    os.rename(tmp_path / "kept", listener.path)  # as one that was killed leaves it
    assert call(str(tmp_path)) is None
    Listener(str(tmp_path), SOCKET).close()


@pytest.mark.parametrize(
    ("code", "status", "ran", "expected"),
    [
        ("exited", "0", True, 0),
        ("exited", "7", True, 7),
        ("killed", "TERM", True, 143),
        ("dumped", "SEGV", True, 139),
        ("exited", "125", False, None),
        ("", "", True, None),
    ],
)
def test_how_it_ended(code: str, status: str, ran: bool, expected: int | None) -> None:
    environment = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": code, "EXIT_STATUS": status}
    packet = render_end(environment, ran=ran)
    assert packet.startswith(ENDED + b" ")
    assert parse_end(packet.partition(b" ")[2].decode()) == expected
    assert parse_end("nonsense") is None


def test_an_input_without_an_end(tmp_path: Path) -> None:
    fd = open_endless(str(tmp_path))
    os.set_blocking(fd, False)
    with pytest.raises(BlockingIOError):
        os.read(fd, 1)
    os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_listens_the_units_own_stay(tmp_path: Path) -> None:
    plan = LaunchPlan(id_map=IdMap((), ()), network="none", layers=1, data="/d")
    assert Stdio(str(tmp_path), plan).streams == {}
    plan.interactive = True
    streams = Stdio(str(tmp_path), plan).streams
    assert list(streams) == [0]
    os.close(streams[0])
