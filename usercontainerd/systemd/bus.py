"""A small, strict, blocking D-Bus client: enough to talk to systemd's user manager in a few milliseconds.

Importing a full D-Bus library takes longer than most commands may (dbus_next: 100 ms). ``_socket``, the C
half of ``socket``, has all that is needed; the Python half costs 6 ms more.

One ``Bus`` belongs to one thread. Descriptors that a message brought belong to whoever takes the message.
"""

from __future__ import annotations

import _socket
import os
import sys
from time import monotonic

from usercontainerd.base.errors import InvalidFormat, SystemdError, printable
from usercontainerd.systemd import message as wire_message
from usercontainerd.systemd.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self

    Request = tuple[str, str, str, str, str, tuple[Any, ...]]

BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"

DEFAULT_TIMEOUT = 25.0  # seconds, as libdbus and sd-bus have it
MOST_SIGNALS = 100_000  # kept for later; a caller that waits for one takes them out
MOST_CALLS_UNDERWAY = 128
MOST_DESCRIPTORS = 253  # the kernel's SCM_MAX_FD
_CHUNK = 64 * 1024


class BusError(SystemdError):
    """An error that the other side answered with; ``dbus_name`` is the error's name."""

    def __init__(self, dbus_name: str, what: str, *, where: str | None = None) -> None:
        super().__init__(what, where=where)
        self.dbus_name = dbus_name


class Bus:
    """A connection to a message bus, or straight to a peer, which needs no names and no ``Hello``."""

    def __init__(self, channel: _socket.socket, where: str) -> None:
        self._channel = channel
        self._where = where
        self._serial = 0
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._signals: list[Message] = []
        self._pending_replies: dict[int, Message] = {}

    @classmethod
    def connect(cls, address: str, *, peer: bool = False, timeout: float = DEFAULT_TIMEOUT) -> Self:
        """Connect to a D-Bus ``address`` (``unix:path=…``, ``unix:abstract=…``; several are separated by ``;``)."""
        failure: OSError | None = None
        for target in parse_address(address):
            channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            try:
                channel.settimeout(timeout)
                channel.connect(target)
            except OSError as error:
                channel.close()
                failure = error
                continue
            bus = cls(channel, address)
            try:
                bus._authenticate(timeout)
                if not peer:
                    bus.call(BUS_NAME, BUS_PATH, BUS_NAME, "Hello", timeout=timeout)
            except BaseException:
                bus.close()
                raise
            return bus
        reason = failure.strerror if failure is not None else "not the address of a unix socket"
        raise SystemdError(f"cannot connect to the bus: {reason}", where=address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and all descriptors that nobody took."""
        self._channel.close()
        waiting = [fd for one in (*self._signals, *self._pending_replies.values()) for fd in one.fds]
        for fd in (*self._fds, *waiting):
            os.close(fd)
        self._fds, self._signals, self._pending_replies = [], [], {}

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._channel.fileno()

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *arguments: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> tuple[Any, ...]:
        """Call a method and return the values of its reply.

        Raises ``BusError`` for an error reply, ``SystemdError`` when the connection fails or ``timeout``
        (seconds) passes. Descriptors among ``arguments`` stay the caller's.
        """
        return self.call_all([(destination, path, interface, member, signature, arguments)], timeout=timeout)[
            0
        ]

    def call_all(
        self, requests: Iterable[Request], *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> list[tuple[Any, ...]]:
        """Send all ``requests`` at once and return their replies in the same order; the first error is raised."""
        replies = self.try_all(requests, timeout=timeout)
        for reply in replies:
            if isinstance(reply, BusError):
                raise reply
        return [reply for reply in replies if not isinstance(reply, BusError)]

    def try_all(
        self, requests: Iterable[Request], *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> list[tuple[Any, ...] | BusError]:
        """Like ``call_all``, with an error in the place of its reply."""
        limit = _deadline(timeout)
        replies: list[tuple[Any, ...] | BusError] = []
        serials: list[int] = []
        for request in requests:
            # A peer that has to keep too many of our replies would give up on us.
            if len(serials) - len(replies) == MOST_CALLS_UNDERWAY:
                replies.append(self._take_reply(serials[len(replies)], limit))
            serials.append(self._send_call(request, limit))
        return replies + [self._take_reply(serial, limit) for serial in serials[len(replies) :]]

    def match(self, rule: str) -> None:
        """Ask the bus for signals (D-Bus specification, "Match Rules"); a peer sends all of its own anyway."""
        self.call(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", rule)

    def wait_signal(
        self, wanted: Callable[[Message], bool], *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> Message | None:
        """Return the first signal that is ``wanted``, dropping those before it; None when ``timeout`` passes."""
        limit = _deadline(timeout)
        while True:
            while self._signals:
                signal = self._signals.pop(0)
                if wanted(signal):
                    return signal
                _close_all(signal.fds)
            try:
                self._receive_one(limit)
            except TimeoutError:
                return None

    def _authenticate(self, timeout: float) -> None:
        # The server says nothing that we would have to wait for before we have said all of it (as sd-bus does).
        identity = str(os.getuid()).encode().hex().encode()
        self._send(
            b"\0AUTH EXTERNAL " + identity + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", (), _deadline(timeout)
        )
        for expected in (b"OK ", b"AGREE_UNIX_FD"):
            line = self._receive_line(_deadline(timeout))
            if not line.startswith(expected):
                raise SystemdError(
                    f"the bus refuses us: {printable(line.decode('latin-1'))}", where=self._where
                )

    def _receive_line(self, limit: float | None) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > 16384:
                raise InvalidFormat("a line without an end, where a bus should greet", where=self._where)
            try:
                self._fill_buffer(limit)
            except TimeoutError as error:
                raise SystemdError("the bus does not answer", where=self._where) from error
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _send_call(self, request: Request, limit: float | None) -> int:
        destination, path, interface, member, signature, arguments = request
        self._serial += 1
        fields = {
            wire_message.PATH: path,
            wire_message.INTERFACE: interface,
            wire_message.MEMBER: member,
            wire_message.DESTINATION: destination,
            wire_message.SIGNATURE: signature,
        }
        call = Message(wire_message.METHOD_CALL, self._serial, fields, arguments)
        data, fds = wire_message.render_message(call)
        self._send(data, fds, limit)
        return self._serial

    def _take_reply(self, serial: int, limit: float | None) -> tuple[Any, ...] | BusError:
        while serial not in self._pending_replies:
            try:
                self._receive_one(limit)
            except TimeoutError as error:
                raise SystemdError("no reply in time", where=self._where) from error
        reply = self._pending_replies.pop(serial)
        if reply.kind == wire_message.METHOD_RETURN:
            return reply.body
        text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
        name = reply.fields[wire_message.ERROR_NAME]
        _close_all(reply.fds)
        return BusError(name, text.rstrip(".\n") or name)

    def _receive_one(self, limit: float | None) -> None:
        """Read one message and put it where it belongs. Raises ``TimeoutError``."""
        while (size := wire_message.measure_message(bytes(self._buffer[:16]))) is None or len(
            self._buffer
        ) < size:
            self._fill_buffer(limit)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        count = wire_message.count_descriptors(data)
        if count > len(self._fds):
            raise InvalidFormat("a D-Bus message without the descriptors it announces", where=self._where)
        fds, self._fds = self._fds[:count], self._fds[count:]
        try:
            received = wire_message.parse_message(data, fds)
        except InvalidFormat:
            _close_all(fds)
            raise
        self._sort(received, limit)

    def _sort(self, received: Message, limit: float | None) -> None:
        reply_to = received.fields.get(wire_message.REPLY_SERIAL, 0)
        if received.kind in (wire_message.METHOD_RETURN, wire_message.ERROR) and 0 < reply_to <= self._serial:
            self._pending_replies[reply_to] = received
        elif received.kind == wire_message.SIGNAL and len(self._signals) < MOST_SIGNALS:
            self._signals.append(received)
        else:
            _close_all(received.fds)
            if (
                received.kind == wire_message.METHOD_CALL
                and not received.flags & wire_message.NO_REPLY_EXPECTED
            ):
                self._refuse(received, limit)

    def _refuse(self, received: Message, limit: float | None) -> None:
        self._serial += 1
        fields = {
            wire_message.ERROR_NAME: UNKNOWN_METHOD,
            wire_message.REPLY_SERIAL: received.serial,
            wire_message.DESTINATION: received.fields.get(wire_message.SENDER, ""),
        }
        self._send(
            wire_message.render_message(Message(wire_message.ERROR, self._serial, fields))[0], (), limit
        )

    def _send(self, data: bytes, fds: Sequence[int], limit: float | None) -> None:
        rights = [
            (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds))
        ]
        rest = memoryview(data)
        try:
            while rest:
                self._set_timeout(limit)
                sent = self._channel.sendmsg([rest], rights if fds else (), _socket.MSG_NOSIGNAL)
                rest, fds = rest[sent:], ()
        except TimeoutError as error:
            raise SystemdError("the bus takes no message in time", where=self._where) from error
        except OSError as error:
            raise SystemdError(
                f"the connection to the bus broke: {error.strerror}", where=self._where
            ) from error

    def _fill_buffer(self, limit: float | None) -> None:
        self._set_timeout(limit)
        try:
            data, ancillary, flags, _ = self._channel.recvmsg(
                _CHUNK, _socket.CMSG_SPACE(4 * MOST_DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError:
            raise
        except OSError as error:
            raise SystemdError(
                f"the connection to the bus broke: {error.strerror}", where=self._where
            ) from error
        for level, kind, payload in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self._fds += [
                    int.from_bytes(payload[i : i + 4], sys.byteorder) for i in range(0, len(payload) - 3, 4)
                ]
        if flags & _socket.MSG_CTRUNC:
            raise InvalidFormat("more descriptors than a message can carry", where=self._where)
        if not data:
            raise SystemdError("the bus closed the connection", where=self._where)
        self._buffer += data

    def _set_timeout(self, limit: float | None) -> None:
        if limit is None:
            self._channel.settimeout(None)
            return
        left = limit - monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def parse_address(address: str) -> list[str | bytes]:
    """Return what ``connect`` of a unix socket takes, for each part of a D-Bus server address that names one."""
    targets: list[str | bytes] = []
    for part in address.split(";"):
        transport, colon, rest = part.partition(":")
        options = dict(option.partition("=")[::2] for option in rest.split(",") if option)
        if transport == "unix" and colon:
            if "path" in options:
                targets.append(_unescape(options["path"]))
            elif "abstract" in options:
                targets.append(b"\0" + _unescape(options["abstract"]))
    return targets


def _unescape(value: str) -> bytes:
    first, *others = value.split("%")
    try:
        pieces = (bytes((int(other[:2], 16),)) + os.fsencode(other[2:]) for other in others)
        return os.fsencode(first) + b"".join(pieces)
    except ValueError as error:
        raise SystemdError("not a D-Bus address", where=value) from error


def escape_object_path(text: str) -> str:
    """Return ``text`` as one element of an object path, as systemd does: ``_`` and two hexadecimal digits."""
    if not text:
        return "_"
    return "".join(
        c
        if c.isascii() and c.isalnum() and (index or not c.isdigit())
        else "".join(f"_{b:02x}" for b in c.encode())
        for index, c in enumerate(text)
    )
