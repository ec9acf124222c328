"""D-Bus messages: header and body (D-Bus specification, "Message Format"). Pure."""

from __future__ import annotations

from struct import unpack_from

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.systemd.wire import LARGEST_ARRAY, Reader, Variant, Writer, parse_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY_EXPECTED = 1

LARGEST_MESSAGE = 128 * 1024 * 1024

# Table "Header Fields" of the specification.
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE, UNIX_FDS = range(1, 10)
_FIELD_TYPES = {1: "o", 2: "s", 3: "s", 4: "s", 5: "u", 6: "s", 7: "s", 8: "g", 9: "u"}
_REQUIRED = {
    METHOD_CALL: (PATH, MEMBER),
    METHOD_RETURN: (REPLY_SERIAL,),
    ERROR: (ERROR_NAME, REPLY_SERIAL),
    SIGNAL: (PATH, INTERFACE, MEMBER),
}


class Message:
    """One message: ``fields`` by the codes above, ``body`` one value for each type of its signature."""

    __slots__ = ("body", "fds", "fields", "flags", "kind", "serial")

    def __init__(
        self,
        kind: int,
        serial: int,
        fields: dict[int, Any],
        body: tuple[Any, ...] = (),
        *,
        flags: int = 0,
        fds: Sequence[int] = (),
    ) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = body
        self.flags = flags
        self.fds = tuple(fds)

    def __repr__(self) -> str:
        return f"Message({self.kind}, {self.serial}, {self.fields!r}, {self.body!r})"


_HEADER = "yyyyuua(yv)"
_FIXED_HEADER = 16  # up to and with the length of the array of fields


def render_message(message: Message) -> tuple[bytes, list[int]]:
    """Return the bytes of ``message``, little-endian, and the descriptors to send with them."""
    signature = message.fields.get(SIGNATURE, "")
    body = Writer()
    body.write_all(signature, message.body)
    fields = dict(message.fields)
    if body.fds:
        fields[UNIX_FDS] = len(body.fds)
    listed = [(code, Variant(_FIELD_TYPES[code], value)) for code, value in fields.items() if value != ""]
    head = Writer()
    head.write_all(
        _HEADER, (ord("l"), message.kind, message.flags, 1, len(body.data), message.serial, listed)
    )
    head.align(8)
    if len(head.data) + len(body.data) > LARGEST_MESSAGE:
        raise InvalidFormat("a D-Bus message larger than 128 MiB")
    return bytes(head.data + body.data), body.fds


def measure_message(start: bytes) -> int | None:
    """Return the size of the message that begins with ``start``, None if that is too short to say."""
    if len(start) < _FIXED_HEADER:
        return None
    if start[0] not in b"lB" or start[3] != 1:
        raise InvalidFormat("not a D-Bus message of protocol version 1")
    order = ">" if start[0] == ord("B") else "<"
    body, _, fields = unpack_from(f"{order}III", start, 4)
    total: int = _FIXED_HEADER + fields + -fields % 8 + body
    if fields > LARGEST_ARRAY or total > LARGEST_MESSAGE:
        raise InvalidFormat("a D-Bus message larger than 128 MiB")
    return total


def count_descriptors(data: bytes) -> int:
    """Return how many descriptors belong to the whole message ``data``."""
    count: int = _parse_header(data)[1].get(UNIX_FDS, 0)
    return count


def parse_message(data: bytes, fds: Sequence[int] = ()) -> Message:
    """Return the message that ``data`` is, no byte more or less. Raises ``InvalidFormat``."""
    (kind, flags, serial), fields, start = _parse_header(data)
    if kind in _REQUIRED and not all(code in fields for code in _REQUIRED[kind]):
        raise InvalidFormat("a D-Bus message that lacks a header field")
    # The body starts at a multiple of 8, so that it can be read as if it stood alone.
    reader = Reader(data[start:], big=data[0] == ord("B"), fds=fds)
    return Message(kind, serial, fields, reader.read_all(fields.get(SIGNATURE, "")), flags=flags, fds=fds)


def _parse_header(data: bytes) -> tuple[tuple[int, int, int], dict[int, Any], int]:
    reader = Reader(data, big=data[:1] == b"B")
    _, kind, flags, _, _, serial, listed = (reader.read(one, 0) for one in parse_signature(_HEADER))
    reader.align(8)
    fields: dict[int, Any] = {}
    for code, variant in listed:
        if code in _FIELD_TYPES:  # others are to be ignored
            if variant.signature != _FIELD_TYPES[code] or code in fields:
                raise InvalidFormat("a D-Bus message with a wrong header field")
            fields[code] = variant.value
    if kind == 0 or serial == 0:
        raise InvalidFormat("a D-Bus message of no type or serial number")
    return (kind, flags, serial), fields, reader.position
