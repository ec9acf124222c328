"""The one place that knows dbus-next, and mends what it lacks for a service that strangers call.

dbus-next gives up the whole connection for one message that it cannot read, or when the bus is slow to take what is
sent, loses descriptors beyond the sixteenth, and has no limit on what waits to be sent. Here a message is read whole
from the socket before anybody looks into it: one that cannot be understood is dropped, its descriptors closed, and
nobody else notices.
"""

from __future__ import annotations

import array
import asyncio
import errno
import io
import logging
import os
import socket

from dbus_next import Message, MessageType, Variant
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.aio.message_bus import MessageBus, _MessageWriter
from dbus_next.constants import MessageFlag, NameFlag, RequestNameReply
from dbus_next.signature import SignatureTree

from usercontainerd.base.errors import UsercontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
MAX_MESSAGE = 128 * 1024 * 1024  # D-Bus specification: "Message Protocol"
MAX_FDS = 253  # the kernel's SCM_MAX_FD
ENOUGH_UNSENT = 500  # messages: until some are gone, no more calls are read
MAX_UNSENT = 50_000  # messages; the bus itself would have cut us off long before
MAX_SIGNATURES = 1000  # that dbus-next remembers; it forgets none by itself, and callers invent them
MAX_PARTS = 256  # of messages that are read before others get their turn
HEADER = 16

__all__ = ["Connection", "Message", "MessageType", "RemoteError", "Variant", "connect_bus"]

logger = logging.getLogger(__name__)


class RemoteError(UsercontainerError):
    """An error that another service on the bus answered with; ``dbus_name`` is its name."""

    def __init__(self, dbus_name: str, what: str) -> None:
        super().__init__(what)
        self.dbus_name = dbus_name


class PatientWriter(_MessageWriter):  # type: ignore[misc]
    """Waits when the socket is full; dbus-next's own takes that for the end of the connection."""

    buf: memoryview | None

    def write_callback(self) -> None:
        try:
            while self._write_some():
                pass
        except (BlockingIOError, InterruptedError):
            return  # called again when there is room
        except OSError as error:
            if self.fut is not None and not self.fut.done():
                self.fut.set_exception(error)
            self.bus._finalize(error)

    def _write_some(self) -> bool:
        """Send a part of a message; False if there is nothing left to send."""
        if self.buf is None:
            if self.messages.qsize() < ENOUGH_UNSENT:
                self.bus.read_on()
            if not self.messages.qsize():
                self.loop.remove_writer(self.fd)
                return False
            data, self.unix_fds, self.fut = self.messages.get_nowait()
            self.buf, self.offset = memoryview(data), 0
        if self.unix_fds:
            fds = array.array("i", self.unix_fds)
            try:
                sent = self.sock.sendmsg(
                    [self.buf[self.offset :]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
                )
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    raise
                # Some program of this user has too many on their way (unix(7)). Nothing of the message has been sent.
                self.buf, self.unix_fds = None, None
                if self.fut is not None and not self.fut.done():
                    self.fut.set_exception(error)
                return True
            self.unix_fds = None
        else:
            sent = self.sock.send(self.buf[self.offset :])
        self.offset += sent
        if self.offset >= len(self.buf):
            self.buf = None
            if self.fut is not None and not self.fut.done():
                self.fut.set_result(None)
        return True


class Connection(MessageBus):  # type: ignore[misc]
    """A connection to a bus that outlives bad messages."""

    def __init__(self, address: str) -> None:
        super().__init__(bus_address=address, negotiate_unix_fd=True)
        self._writer = PatientWriter(self)
        # An error on it is for ``wait_for_end``; else asyncio would log a traceback at the end of the process.
        self._disconnect_future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._paused = False
        self._frame = bytearray()
        self._wanted = HEADER
        self._received_fds: list[int] = []

    def _message_reader(self) -> None:
        try:
            for _ in range(MAX_PARTS):
                if self._writer.messages.qsize() >= ENOUGH_UNSENT:
                    # Whoever asks without reading the answers has to wait, and the bus keeps the calls.
                    self._loop.remove_reader(self._fd)
                    self._paused = True
                    break
                if not self._receive():
                    break
        except OSError as error:
            self._finalize(error)
        except EOFError:
            self._finalize(ConnectionResetError("the bus has gone"))

    async def wait_for_end(self) -> None:
        """Return when the connection is at its end, and tell the log if that was not our wish."""
        try:
            await self.wait_for_disconnect()
        except OSError as error:
            logger.warning("the connection to the session bus has ended: %s", error.strerror or error)

    def read_on(self) -> None:
        """There is room for answers again."""
        if self._paused:
            self._paused = False
            self._loop.add_reader(self._fd, self._message_reader)

    def _receive(self) -> bool:
        """Read a part of a message and handle the message once it is whole; False if nothing more is there."""
        fds = array.array("i")
        try:
            data, ancillary, _flags, _address = self._sock.recvmsg(
                self._wanted - len(self._frame),
                socket.CMSG_LEN(MAX_FDS * fds.itemsize),
                socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
            )
        except (BlockingIOError, InterruptedError):
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        self._received_fds.extend(fds)
        if not data:
            raise EOFError
        self._frame += data
        if len(self._frame) < self._wanted:
            return True
        if self._wanted == HEADER:
            self._wanted = measure_message(bytes(self._frame))
            if self._wanted > HEADER:
                return True
        frame, self._frame, self._wanted = bytes(self._frame), bytearray(), HEADER
        received, self._received_fds = self._received_fds, []
        self._take(frame, received)
        return True

    def _take(self, frame: bytes, fds: list[int]) -> None:
        try:
            unmarshaller = Unmarshaller(io.BytesIO(frame))
            message = unmarshaller.unmarshall()
            if message is None:
                raise ValueError("the message ends too early")
            message.unix_fds = fds
            if len(SignatureTree._cache) > MAX_SIGNATURES:
                SignatureTree._cache.clear()
        except Exception as error:
            for fd in fds:
                os.close(fd)
            logger.warning("dropped a message that cannot be read: %s", type(error).__name__)
            return
        if message.message_type is not MessageType.METHOD_CALL and fds and not self._expects(message):
            for fd in fds:
                os.close(fd)
            message.unix_fds = []
        self._on_message(message)

    def _expects(self, message: Message) -> bool:
        return message.reply_serial in self._method_return_handlers

    def post(self, message: Message) -> None:
        """Send without waiting. Descriptors of the message stay the caller's, who closes them when it is sent."""
        if self._writer.messages.qsize() > MAX_UNSENT:
            logger.error("the bus takes nothing any more")
            self.disconnect()
            return
        future = self.send(message)
        # Nobody waits for it: an error shows as the end of the connection.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def post_with(self, message: Message, fds: list[int], instead: Message) -> None:
        """Send, and close ``fds`` (those of the message) as soon as they are on their way.

        ``instead`` is sent where the kernel takes no descriptors now.
        """

        def close(done: asyncio.Future[None]) -> None:
            for fd in fds:
                os.close(fd)
            error = None if done.cancelled() else done.exception()
            if isinstance(error, OSError) and error.errno == errno.ETOOMANYREFS:
                self.post(instead)

        self.send(message).add_done_callback(close)

    async def ask(  # noqa: PLR0917
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        *,
        timeout: float = 25.0,
    ) -> list[Any]:
        """Call a method of another service; return the body of its answer.

        Raises ``RemoteError``, ``TimeoutError`` or ``ConnectionError``.
        """
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body or [],
        )
        if self._disconnected:
            raise ConnectionResetError("the bus has gone")
        async with asyncio.timeout(timeout):
            reply = await self.call(message)
        if reply is None:
            raise ConnectionResetError("the bus has gone")
        for fd in reply.unix_fds:
            os.close(fd)
        if reply.message_type is MessageType.ERROR:
            raise RemoteError(reply.error_name, str(reply.body[0]) if reply.body else reply.error_name)
        answer: list[Any] = reply.body
        return answer

    async def add_match(self, rule: str) -> None:
        """Have the bus deliver the signals of a match rule."""
        await self.ask(BUS, BUS_PATH, BUS, "AddMatch", "s", [rule])

    def remove_match(self, rule: str) -> None:
        """Take a match rule back, without waiting."""
        self.post(
            Message(
                destination=BUS,
                path=BUS_PATH,
                interface=BUS,
                member="RemoveMatch",
                signature="s",
                body=[rule],
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )

    async def own_name(self, name: str) -> bool:
        """Become the owner of a well-known name; False if another process has it."""
        reply = await self.request_name(name, NameFlag.DO_NOT_QUEUE)
        return reply in (RequestNameReply.PRIMARY_OWNER, RequestNameReply.ALREADY_OWNER)


def measure_message(header: bytes) -> int:
    """Return the length of the message that begins with these 16 bytes. Raises ``OSError`` if it cannot be one."""
    order = {ord("l"): "little", ord("B"): "big"}.get(header[0])
    if order is None:
        raise ConnectionResetError("the bus sends something that is no message")
    body = int.from_bytes(header[4:8], order)  # type: ignore[arg-type]
    fields = int.from_bytes(header[12:16], order)  # type: ignore[arg-type]
    length = HEADER + fields + -fields % 8 + body
    if length > MAX_MESSAGE:
        raise ConnectionResetError("the bus sends a message that is too long")
    return length


async def connect_bus(address: str) -> Connection:
    """Connect to the bus at ``address``. Raises ``OSError`` or dbus-next's ``AuthError``."""
    connection = Connection(address)
    await connection.connect()
    return connection
