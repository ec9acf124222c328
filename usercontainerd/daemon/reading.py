"""From a bus's socket to messages, with no more of them in memory than was agreed to.

dbus-next reads whatever the bus lets through, 128 MiB in one message, and makes objects of it before anybody has seen
who sends it. Here a message's header is read first, and a ``Receiver`` decides by it: what is refused is drained from
the socket unseen. A message that cannot be understood is dropped, its descriptors closed, and nobody else notices.
"""

from __future__ import annotations

import array
import io
import logging
import os
import socket

from dbus_next import Message, MessageType
from dbus_next._private.constants import HeaderField
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.constants import MessageFlag
from dbus_next.signature import SignatureTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Receiver(Protocol):
        """Who the messages are for. ``size`` is in bytes on the wire."""

        def admit(self, message: Message, size: int) -> bool:
            """Tell by its header, the body still missing, whether a message is to be read."""

        def take(self, message: Message, weight: int) -> None:
            """Take a message, with its descriptors. ``weight`` is about what it occupies, in bytes."""

        def refuse(self, message: Message, why: str) -> None:
            """Hear of one that was admitted, but is more than anybody needs; its body is gone."""


MAX_MESSAGE = 128 * 1024 * 1024  # D-Bus specification: "Message Protocol"
MAX_HEADER = 16 * 1024  # bytes: names have 255 at most, and no path of ours is longer
MAX_VALUES = 20_000  # in one body; a struct or an array is one, too
VALUE_WEIGHT = 256  # bytes that an object in memory takes, at most: a variant
MAX_FDS = 253  # the kernel's SCM_MAX_FD
MAX_SIGNATURES = 1000  # that dbus-next remembers; it forgets none by itself, and callers invent them
DRAIN = 256 * 1024  # bytes of a refused message at once
PRELUDE = 16
FIELDS = {field.value: field.name.lower() for field in HeaderField}
ALL_FLAGS = (
    MessageFlag.NO_REPLY_EXPECTED.value
    | MessageFlag.NO_AUTOSTART.value
    | MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION.value
)

logger = logging.getLogger(__name__)


class TooManyValues(Exception):
    """A body has more than ``MAX_VALUES``."""


class BoundedUnmarshaller(Unmarshaller):  # type: ignore[misc]
    """Counts what it makes of ``data``, a part of a message that begins at a multiple of eight bytes."""

    def __init__(self, order: int, data: bytes) -> None:
        super().__init__(io.BytesIO())
        self.endian = order
        self.buf = bytearray(data)
        self.values = 0

    def read_argument(self, type_: Any) -> Any:
        """Read one value. Raises ``TooManyValues``."""
        self.values += 1
        if self.values > MAX_VALUES:
            raise TooManyValues
        return super().read_argument(type_)


class MessageReader:
    """Reads the messages of a socket piece by piece, and hands each to its receiver."""

    def __init__(self, channel: socket.socket, receiver: Receiver) -> None:
        self._socket = channel
        self._receiver = receiver
        self._piece = bytearray()
        self._wanted = PRELUDE
        self._length = 0  # of the whole message, once that is known
        self._header = b""
        self._message: Message | None = None
        self._left_to_drain = 0
        self._fds: list[int] = []

    def receive(self) -> bool:
        """Read a part of a message and hand it on once it is whole; False if nothing more is there.

        Raises ``EOFError``, and ``OSError`` also for what can be no message.
        """
        fds = array.array("i")
        wanted = min(self._left_to_drain, DRAIN) or self._wanted - len(self._piece)
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(
                wanted,
                socket.CMSG_LEN(MAX_FDS * fds.itemsize),
                socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
            )
        except (BlockingIOError, InterruptedError):
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        self._fds.extend(fds)
        if not data:
            raise EOFError
        if self._left_to_drain:
            self._drain(len(data))
            return True
        self._piece += data
        if len(self._piece) == self._wanted:
            self._go_on()
        return True

    def _go_on(self) -> None:
        """A part is whole: the prelude, the header with it, or the body."""
        piece, self._piece = bytes(self._piece), bytearray()
        if self._wanted == PRELUDE and not self._length:
            header, self._length = measure_message(piece)
            if header > MAX_HEADER:
                logger.warning("dropped a message with a header of %d bytes", header)
                self._drop(len(piece))
            else:
                self._piece, self._wanted = bytearray(piece), header
                if header == PRELUDE:
                    self._go_on()
        elif self._message is None:
            self._header = piece
            self._take_header(piece)
        else:
            self._finish(self._message, piece)

    def _take_header(self, header: bytes) -> None:
        try:
            message = read_header(header)
        except Exception as error:
            logger.warning("dropped a message that cannot be read: %s", type(error).__name__)
            self._drop(len(header))
            return
        if not self._receiver.admit(message, self._length):
            self._drop(len(header))
            return
        self._message, self._wanted = message, self._length - len(header)
        if not self._wanted:
            self._finish(message, b"")

    def _finish(self, message: Message, body: bytes) -> None:
        header, length, fds = self._header, self._length, self._fds
        self._reset()
        self._fds = []
        try:
            values = read_body(message, header, body)
        except TooManyValues:
            _close(fds)
            self._receiver.refuse(message, f"more than {MAX_VALUES} values in a message")
            return
        except Exception as error:
            _close(fds)
            logger.warning("dropped a message that cannot be read: %s", type(error).__name__)
            return
        message.unix_fds = fds
        self._receiver.take(message, length + values * VALUE_WEIGHT)

    def _reset(self) -> None:
        self._piece, self._wanted, self._length = bytearray(), PRELUDE, 0
        self._header, self._message = b"", None

    def _drop(self, seen: int) -> None:
        """Leave the rest of this message unread, of which ``seen`` bytes have been."""
        self._left_to_drain = self._length - seen
        self._reset()
        self._drain(0)

    def _drain(self, gone: int) -> None:
        self._left_to_drain -= gone
        _close(self._fds)
        self._fds = []


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def measure_message(prelude: bytes) -> tuple[int, int]:
    """Return the lengths of the header and of the whole of the message that begins with these 16 bytes. Pure.

    Raises ``OSError`` if it cannot be one.
    """
    order = {ord("l"): "little", ord("B"): "big"}.get(prelude[0])
    if order is None:
        raise ConnectionResetError("the bus sends something that is no message")
    body = int.from_bytes(prelude[4:8], order)  # type: ignore[arg-type]
    fields = int.from_bytes(prelude[12:16], order)  # type: ignore[arg-type]
    header = PRELUDE + fields + -fields % 8
    if header + body > MAX_MESSAGE:
        raise ConnectionResetError("the bus sends a message that is too long")
    return header, header + body


def read_header(header: bytes) -> Message:
    """Return the message that a header begins, with an empty body. Raises whatever dbus-next does. Pure."""
    reader = BoundedUnmarshaller(header[0], header)
    kind, flags, version = MessageType(header[1]), MessageFlag(header[2] & ALL_FLAGS), header[3]
    if version != 1:
        raise ValueError(f"version {version} of the protocol")
    reader.read(8)
    serial = reader.read_uint32()
    # What is newer than dbus-next is to be ignored, says the specification.
    fields = {
        FIELDS.get(code, ""): value.value for code, value in reader.read_argument(_parse("a(yv)").types[0])
    }
    return Message(
        message_type=kind,
        flags=flags,
        serial=serial,
        signature=_parse(fields.get("signature", "")),
        **{
            name: fields.get(name)
            for name in ("path", "interface", "member", "error_name", "destination", "sender", "reply_serial")
        },
    )


def read_body(message: Message, header: bytes, body: bytes) -> int:
    """Fill in the body; return how many values it has. Raises ``TooManyValues``, or whatever dbus-next does."""
    reader = BoundedUnmarshaller(header[0], body)
    message.body = [reader.read_argument(kind) for kind in message.signature_tree.types]
    if reader.offset != len(body):
        raise ValueError("the message has another length than its body")
    return reader.values


def _parse(signature: str) -> SignatureTree:
    if len(SignatureTree._cache) > MAX_SIGNATURES:
        SignatureTree._cache.clear()
    return SignatureTree._get(signature)
