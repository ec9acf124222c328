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
from dbus_next import Message, MessageType, Variant

from usercontainerd.daemon.connection import Connection
from usercontainerd.daemon.reading import MAX_HEADER, MAX_VALUES, PRELUDE, measure_message
from usercontainerd.kernel.signals import find_process_number

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
        _header, length = measure_message(sent[:PRELUDE])
        assert (sent[1], sent[length + 1]) == (
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


def make_call(serial: int, signature: str, body: list[object]) -> bytes:
    call = Message(path="/a", interface="a.b", member="C", sender=":1.2", signature=signature, body=body)
    return render(call, serial)


def test_what_is_refused_is_never_in_memory(play: Callable[[Test], None]) -> None:
    """Only its header is looked at, and what comes after it is whole."""

    async def test(peer: Peer) -> None:
        seen: list[tuple[int, int]] = []

        def admit(message: Message, size: int) -> bool:
            assert message.body == []
            seen.append((message.serial, size))
            return size < 1_000_000

        peer.connection.gate = admit
        long, short = make_call(1, "s", ["x" * 1_000_000]), make_call(2, "s", ["x"])
        reader, writer = os.pipe()
        held = []
        whole = long + short
        for at in range(0, len(whole), 50_000):
            peer.send(whole[at : at + 50_000], fds=[writer] if not at else None)
            await peer.settle()
            held.append(len(peer.connection._reader._piece))
        os.close(writer)
        assert os.read(reader, 1) == b""  # closed
        os.close(reader)
        assert max(held) < 1000
        assert seen == [(1, len(long)), (2, len(short))]
        assert [message.body for message in peer.taken] == [["x"]]

    play(test)


def test_what_nobody_asked_for_is_not_read(play: Callable[[Test], None]) -> None:
    """Answers to no call of ours, signals to us alone from one who is not the bus, headers beyond measure."""

    async def test(peer: Peer) -> None:
        answer = Message(message_type=MessageType.METHOD_RETURN, reply_serial=77, signature="s", body=["x"])
        signal = Message(
            message_type=MessageType.SIGNAL, path="/a", interface="a.b", member="D", destination=":1.1"
        )
        path = Message(path="/" + "x" * MAX_HEADER, interface="a.b", member="E")
        peer.send(render(answer), render(signal), render(path), render(SIGNAL))
        await peer.settle()
        assert [message.member for message in peer.taken] == ["C"]

    play(test)


def test_a_message_of_very_many_values(play: Callable[[Test], None]) -> None:
    """Each is an object, hundreds of times as large as on the wire."""

    async def test(peer: Peer) -> None:
        refused: list[int] = []
        peer.connection.on_refusal = lambda message, _why: refused.append(message.serial)
        many, some = make_call(1, "ai", [[0] * MAX_VALUES]), make_call(2, "ai", [[0] * (MAX_VALUES - 1)])
        for data in (many, some, make_call(3, "ay", [b"x" * (2 * MAX_VALUES)])):
            for at in range(0, len(data), 50_000):
                peer.send(data[at : at + 50_000])
                await peer.settle()
        assert refused == [1]
        assert [message.serial for message in peer.taken] == [2, 3]
        assert peer.taken[0].weight > 100 * MAX_VALUES

    play(test)


def test_header_fields_that_nobody_knows_yet(play: Callable[[Test], None]) -> None:
    """The specification wants them ignored."""

    async def test(peer: Peer) -> None:
        whole = render(SIGNAL)
        header, _ = measure_message(whole[:PRELUDE])
        fields = int.from_bytes(whole[12:16], "little")
        more = whole[16 : 16 + fields] + b"\0" * (-fields % 8) + b"\x63\x01u\0\x05\0\0\0"
        peer.send(whole[:12] + struct.pack("<I", len(more)) + more + whole[header:])
        await peer.settle()
        assert [message.body for message in peer.taken] == [["x" * 100]]

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
    header, length = measure_message(render(SIGNAL)[:PRELUDE])
    assert (header % 8, length) == (0, len(render(SIGNAL)))
    with pytest.raises(OSError, match="no message"):
        measure_message(b"x" * PRELUDE)
    with pytest.raises(OSError, match="too long"):
        measure_message(b"l\x04\x00\x01" + struct.pack("<III", 1 << 31, 1, 16))


@pytest.mark.parametrize("tells_pidfd", [True, False])
def test_the_process_of_a_client(play: Callable[[Test], None], tells_pidfd: bool) -> None:
    """The bus's own pidfd if it tells one, else one of the number that it tells; other descriptors are closed."""

    async def test(peer: Peer) -> None:
        peer.connection.remove_message_handler(peer._take)  # which takes answers, too
        asked = asyncio.ensure_future(peer.connection.open_process(":1.9"))
        await peer.settle()
        peer.channel.recv(65536)
        credentials = {"ProcessID": Variant("u", os.getpid() if not tells_pidfd else 1)}
        pidfd, other = os.pidfd_open(os.getppid()), os.open(os.devnull, os.O_RDONLY)
        if tells_pidfd:
            credentials["ProcessFD"] = Variant("h", 1)
        before = len(os.listdir("/proc/self/fd"))
        serial = max(peer.connection._method_return_handlers)
        answer = Message(
            message_type=MessageType.METHOD_RETURN,
            reply_serial=serial,
            sender="org.freedesktop.DBus",
            signature="a{sv}",
            body=[credentials],
            unix_fds=[other, pidfd],
        )
        peer.send(render(answer), fds=[other, pidfd])
        found = await asyncio.wait_for(asked, 60)
        try:
            assert find_process_number(found) == (os.getppid() if tells_pidfd else os.getpid())
            assert len(os.listdir("/proc/self/fd")) == before + 1
        finally:
            for fd in (found, pidfd, other):
                os.close(fd)

    play(test)
