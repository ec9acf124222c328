"""The one place that knows dbus-next, and mends what it lacks for a service that strangers call.

dbus-next gives up the whole connection for one message that it cannot read, or when the bus is slow to take what is
sent, loses descriptors beyond the sixteenth, and has no limit on what it reads (see ``reading``) nor on what waits to
be sent.
"""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import os
import socket

from dbus_next import Message, MessageType, Variant
from dbus_next.aio.message_bus import MessageBus, _MessageWriter
from dbus_next.constants import MessageFlag, NameFlag, RequestNameReply

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.daemon.reading import MessageReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
ENOUGH_UNSENT = 500  # messages: until some are gone, no more calls are read
ENOUGH_UNSENT_BYTES = 8 * 1024 * 1024  # the same
MAX_UNSENT = 50_000  # messages; the bus itself would have cut us off long before
MAX_PARTS = 256  # of messages that are read before others get their turn

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
    unsent = 0  # bytes

    @property
    def has_enough(self) -> bool:
        """True while so much waits that nothing more is to be answered."""
        return bool(self.messages.qsize() >= ENOUGH_UNSENT or self.unsent >= ENOUGH_UNSENT_BYTES)

    def buffer_message(self, msg: Message, future: asyncio.Future[None] | None = None) -> None:
        """Have a message wait for its turn."""
        data = msg._marshall(negotiate_unix_fd=self.negotiate_unix_fd)
        self.unsent += len(data)
        self.messages.put_nowait((data, list(msg.unix_fds), future))

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
            if not self.has_enough:
                self.bus.read_on()
            if not self.messages.qsize():
                self.loop.remove_writer(self.fd)
                return False
            data, self.unix_fds, self.fut = self.messages.get_nowait()
            self.unsent -= len(data)
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
        self._reader = MessageReader(self._sock, self)
        self.gate: Callable[[Message, int], bool] = lambda _call, _size: True
        self.on_refusal: Callable[[Message, str], None] = lambda _call, _why: None

    def _message_reader(self) -> None:
        try:
            for _ in range(MAX_PARTS):
                if self._writer.has_enough:
                    # Whoever asks without reading the answers has to wait, and the bus keeps the calls.
                    self._loop.remove_reader(self._fd)
                    self._paused = True
                    break
                if not self._reader.receive():
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

    # What the reader asks and hands over

    def admit(self, message: Message, size: int) -> bool:
        """Tell whether a message is to be read; ``gate`` says so of calls.

        Answers are read if we have asked, signals if they are for all who want them, and so match a rule of ours,
        which names their sender.
        """
        if message.message_type is MessageType.METHOD_CALL:
            return self.gate(message, size)
        if message.message_type is MessageType.SIGNAL:
            return message.destination is None or message.sender == BUS
        return self._expects(message)

    def take(self, message: Message, weight: int) -> None:
        """Handle a message; only calls bring descriptors, and answers that somebody waits for."""
        message.weight = weight
        if message.message_type is MessageType.SIGNAL:
            for fd in message.unix_fds:
                os.close(fd)
            message.unix_fds = []
        self._on_message(message)

    def refuse(self, message: Message, why: str) -> None:
        """Hear of a message that is too much."""
        if message.message_type is MessageType.METHOD_CALL:
            self.on_refusal(message, why)
        else:
            logger.warning("dropped a message of %s: %s", message.sender, why)

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
        reply = await self._ask(destination, path, interface, member, signature, body, timeout=timeout)
        for fd in reply.unix_fds:
            os.close(fd)
        answer: list[Any] = reply.body
        return answer

    async def open_process(self, client: str) -> int:
        """Return a pidfd of the process that made the connection of a client.

        The bus has one since it was connected, so it is that process and none that got its number later; of a bus
        before D-Bus 1.15.8 only the number can be had. Raises what ``ask`` does, or ``OSError`` if it has ended.
        """
        reply = await self._ask(BUS, BUS_PATH, BUS, "GetConnectionCredentials", "s", [client])
        fds = dict(enumerate(reply.unix_fds))
        credentials = reply.body[0]
        own = fds.pop(credentials["ProcessFD"].value, None) if "ProcessFD" in credentials else None
        for fd in fds.values():
            os.close(fd)
        return os.pidfd_open(credentials["ProcessID"].value) if own is None else own

    async def _ask(  # noqa: PLR0917
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: list[Any] | None,
        *,
        timeout: float = 25.0,
    ) -> Message:
        """The same, with all of the answer: its descriptors are the caller's."""
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
        if reply.message_type is MessageType.ERROR:
            for fd in reply.unix_fds:
                os.close(fd)
            raise RemoteError(reply.error_name, str(reply.body[0]) if reply.body else reply.error_name)
        return reply

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

    async def give_up_name(self, name: str) -> None:
        """Own it no more. What was sent to it until then has been taken when this returns."""
        await self.ask(BUS, BUS_PATH, BUS, "ReleaseName", "s", [name])

    async def flush(self) -> None:
        """Return when the bus has all that was sent: it answers in turn."""
        await self.ask(BUS, BUS_PATH, BUS, "GetId")


async def connect_bus(address: str) -> Connection:
    """Connect to the bus at ``address``. Raises ``OSError`` or dbus-next's ``AuthError``."""
    connection = Connection(address)
    await connection.connect()
    return connection
