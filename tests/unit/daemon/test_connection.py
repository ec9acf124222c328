"""A connection outlives what dbus-next does not: a slow bus, broken messages, many descriptors."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dbus_next import Message, MessageType

from usercontainerd.daemon.connection import HEADER, Connection, measure_message

SIGNAL = Message(
    message_type=MessageType.SIGNAL, path="/a", interface="a.b", member="C", signature="s", body=["x" * 100]
)


class Peer:
    """The bus's end of a connection, without a bus: what it sends is what the test wants."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.connection = Connection(f"unix:path={path}")
        self.channel, _ = self._listener.accept()
        self.connection.unique_name = ":1.1"
        self.taken: list[Message] = []
        self.connection.add_message_handler(self._take)
        self.connection._loop.add_reader(self.connection._fd, self.connection._message_reader)

    def _take(self, message: Message) -> bool:
        self.taken.append(message)
        return True

    def send(self, *messages: bytes, fds: list[int] | None = None) -> None:
        socket.send_fds(self.channel, [b"".join(messages)], fds or [])

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)

    def close(self) -> None:
        self.channel.close()
        self._listener.close()
        self.connection.disconnect()


Test = Callable[[Peer], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def main() -> None:
            peer = Peer(tmp_path / "bus")
            try:
                await test(peer)
            finally:
                peer.close()

        asyncio.run(main())

    return run


def render(message: Message, serial: int = 1) -> bytes:
    message.serial = serial
    data: bytes = message._marshall(negotiate_unix_fd=True)
    return data


def test_a_slow_bus_gets_all_of_it_in_the_end(play: Callable[[Test], None]) -> None:
    async def test(peer: Peer) -> None:
        for _ in range(5000):
            peer.connection.post(SIGNAL)
        await peer.settle()
        assert peer.connection._writer.messages.qsize() > 0  # the socket is full
        peer.channel.setblocking(False)
        total = 0
        for _ in range(2000):
            try:
                total += len(peer.channel.recv(1 << 20))
            except BlockingIOError:
                if not peer.connection._writer.messages.qsize():
                    break
            await asyncio.sleep(0)
        assert total > 5000 * 100
        peer.send(render(SIGNAL))
        await peer.settle()
        assert len(peer.taken) == 1

    play(test)


def test_descriptors_that_the_kernel_does_not_take_now(play: Callable[[Test], None]) -> None:
    """Any program of the user can bring that about: the connection stays, and the caller gets an error."""

    class Refusing:
        def __init__(self, channel: socket.socket) -> None:
            self.send = channel.send

        def sendmsg(self, *_: object) -> int:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

    async def test(peer: Peer) -> None:
        peer.connection._writer.sock = Refusing(peer.connection._sock)
        reader, writer = os.pipe()
        call = Message(path="/a", interface="a.b", member="C", sender=":1.2", serial=7)
        instead = Message.new_error(call, "a.b.Error", "no descriptors")
        peer.connection.post_with(Message.new_method_return(call, "h", [0], [writer]), [writer], instead)
        await peer.settle()
        assert os.read(reader, 1) == b""  # closed
        os.close(reader)
        peer.connection.post(SIGNAL)
        await peer.settle()
        sent = peer.channel.recv(10_000)
        assert (sent[1], sent[measure_message(sent[:HEADER]) + 1]) == (
            MessageType.ERROR.value,
            MessageType.SIGNAL.value,
        )

    play(test)


def test_broken_messages_are_dropped_alone(play: Callable[[Test], None]) -> None:
    async def test(peer: Peer) -> None:
        whole = render(SIGNAL)
        broken = bytearray(whole)
        broken[-105:-101] = struct.pack("<I", 1_000_000)  # a string longer than its message
        reader, writer = os.pipe()
        peer.send(bytes(broken), fds=[writer])
        os.close(writer)
        await peer.settle()
        assert os.read(reader, 1) == b""  # closed
        os.close(reader)
        peer.send(whole)
        await peer.settle()
        assert [message.member for message in peer.taken] == ["C"]

    play(test)


def test_messages_in_pieces(play: Callable[[Test], None]) -> None:
    async def test(peer: Peer) -> None:
        data = render(SIGNAL) + render(SIGNAL, 2)
        for at in range(0, len(data), 7):
            peer.send(data[at : at + 7])
            await asyncio.sleep(0)
        await peer.settle()
        assert [message.serial for message in peer.taken] == [1, 2]

    play(test)


def test_the_end_of_the_bus_ends_what_waits(play: Callable[[Test], None]) -> None:
    async def test(peer: Peer) -> None:
        waiting = asyncio.create_task(peer.connection.ask("a.b", "/a", "a.b", "C"))
        await peer.settle()
        peer.channel.close()
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await peer.connection.ask("a.b", "/a", "a.b", "C")
        peer.channel = socket.socket()

    play(test)


def test_what_is_no_message() -> None:
    assert measure_message(render(SIGNAL)[:HEADER]) == len(render(SIGNAL))
    with pytest.raises(OSError, match="no message"):
        measure_message(b"x" * HEADER)
    with pytest.raises(OSError, match="too long"):
        measure_message(b"l\x04\x00\x01" + struct.pack("<III", 1 << 31, 1, 16))
