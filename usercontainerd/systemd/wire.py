"""D-Bus values as bytes and back (D-Bus specification, "Type System" and "Marshaling (Wire Format)").

Python values: integers for ``y n q i u x t``, bool, float, str for ``s o g``, list for arrays, bytes for
``ay``, dict for ``a{}``, tuple for structures, ``Variant`` for ``v``, and for ``h`` the file descriptor
itself. What is read is checked as strictly as the specification asks. Pure. Imports ``struct`` only: the
command's fast paths load this.
"""

from __future__ import annotations

from struct import Struct

from usercontainerd.base.errors import InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LARGEST_ARRAY = 64 * 1024 * 1024
LARGEST_SIGNATURE = 255
DEEPEST = 32  # of arrays, and of structures, in a signature
DEEPEST_VALUE = 64  # of both, and of variants, in a message

_ALIGNMENT = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
_NUMBERS = {
    code: Struct(f"<{letter}")
    for code, letter in zip("ynqiuxtdbh", "BhHiIqQdII", strict=True)  # b and h travel as uint32
}
_BIG_NUMBERS = {code: Struct(f">{number.format[1:]}") for code, number in _NUMBERS.items()}
_BASIC = frozenset("ynqiuxtdbhsog")
_PATH = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/")
_UINT32 = _NUMBERS["u"]


class Variant:
    """A value that carries its own type, a single complete ``signature``."""

    __slots__ = ("signature", "value")

    def __init__(self, signature: str, value: Any) -> None:
        self.signature = signature
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Variant):
            return NotImplemented
        return self.signature == other.signature and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Variant({self.signature!r}, {self.value!r})"


def unwrap(value: Any) -> Any:
    """Return ``value`` with all variants in it replaced by what they hold."""
    if isinstance(value, Variant):
        return unwrap(value.value)
    if isinstance(value, list):
        return [unwrap(item) for item in value]
    if isinstance(value, tuple):
        return tuple(unwrap(item) for item in value)
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    return value


class Type:
    """One complete type: ``code`` (``a`` array, ``(`` structure, ``{`` entry of a dict) and its ``parts``."""

    __slots__ = ("alignment", "code", "parts")

    def __init__(self, code: str, parts: tuple[Type, ...] = ()) -> None:
        self.code = code
        self.parts = parts
        self.alignment = _ALIGNMENT.get(code, 4)


_known_signatures: dict[str, tuple[Type, ...]] = {}


def parse_signature(signature: str) -> tuple[Type, ...]:
    """Return the complete types that ``signature`` lists. Raises ``InvalidFormat``."""
    types = _known_signatures.get(signature)
    if types is None:
        if len(signature) > LARGEST_SIGNATURE:
            raise InvalidFormat("a D-Bus signature longer than 255 characters")
        found = []
        position = 0
        while position < len(signature):
            one, position = _parse_type(signature, position, 0, 0)
            found.append(one)
        types = tuple(found)
        if len(_known_signatures) < 1000:
            _known_signatures[signature] = types
    return types


def _parse_type(signature: str, position: int, arrays: int, structures: int) -> tuple[Type, int]:
    code = signature[position : position + 1]
    position += 1
    if code in _BASIC or code == "v":
        return Type(code), position
    if code == "a" and arrays < DEEPEST:
        if signature[position : position + 1] == "{":
            return _parse_dict(signature, position + 1, arrays + 1, structures + 1)
        element, position = _parse_type(signature, position, arrays + 1, structures)
        return Type("a", (element,)), position
    if code == "(" and structures < DEEPEST:
        fields = []
        while signature[position : position + 1] != ")":
            field, position = _parse_type(signature, position, arrays, structures + 1)
            fields.append(field)
        if fields:
            return Type("(", tuple(fields)), position + 1
    raise InvalidFormat(f'not a D-Bus signature: "{signature}"')


def _parse_dict(signature: str, position: int, arrays: int, structures: int) -> tuple[Type, int]:
    key, position = _parse_type(signature, position, arrays, structures)
    value, position = _parse_type(signature, position, arrays, structures)
    if key.code not in _BASIC or signature[position : position + 1] != "}" or structures > DEEPEST:
        raise InvalidFormat(f'not a D-Bus signature: "{signature}"')
    return Type("a", (Type("{", (key, value)),)), position + 1


def is_object_path(path: str) -> bool:
    """Tell whether ``path`` is a D-Bus object path."""
    if path == "/":
        return True
    return path.startswith("/") and not path.endswith("/") and "//" not in path and _PATH.issuperset(path)


class Writer:
    """Collects little-endian bytes; ``fds`` are the descriptors that ``h`` values refer to."""

    __slots__ = ("data", "fds")

    def __init__(self) -> None:
        self.data = bytearray()
        self.fds: list[int] = []

    def write_all(self, signature: str, values: Sequence[Any]) -> None:
        """Append ``values``, one for each complete type of ``signature``."""
        types = parse_signature(signature)
        if len(types) != len(values):
            raise InvalidFormat(f'{len(values)} values for the D-Bus signature "{signature}"')
        for one, value in zip(types, values, strict=True):
            self.write(one, value)

    def align(self, alignment: int) -> None:
        """Pad with zeros."""
        self.data += bytes(-len(self.data) % alignment)

    def write(self, one: Type, value: Any) -> None:
        """Append one value. Raises ``InvalidFormat`` if it does not fit its type."""
        code = one.code
        self.align(one.alignment)
        if code in ("s", "o", "g"):
            self._write_string(code, value)
        elif code == "a":
            self._write_array(one.parts[0], value)
        elif code in ("(", "{"):
            if len(value) != len(one.parts):
                raise InvalidFormat(f"{len(value)} fields in a D-Bus structure of {len(one.parts)}")
            for part, field in zip(one.parts, value, strict=True):
                self.write(part, field)
        elif code == "v":
            self._write_string("g", value.signature)
            self.write_all(value.signature, (value.value,))
        else:
            self._write_number(code, value)

    def _write_number(self, code: str, value: Any) -> None:
        if code == "h":
            self.fds.append(value)
            value = len(self.fds) - 1
        elif code == "b":
            value = bool(value)
        try:
            self.data += _NUMBERS[code].pack(value)
        except Exception as error:  # struct.error is no OSError or ValueError
            raise InvalidFormat(f'{value!r} is no value of the D-Bus type "{code}"') from error

    def _write_string(self, code: str, text: str) -> None:
        try:
            encoded = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidFormat("D-Bus strings hold Unicode text only") from error
        if 0 in encoded or (code == "o" and not is_object_path(text)):
            raise InvalidFormat(f'{text!r} is no value of the D-Bus type "{code}"')
        if code == "g":
            parse_signature(text)
            self.data.append(len(encoded))
        else:
            self.data += _UINT32.pack(len(encoded))
        self.data += encoded
        self.data.append(0)

    def _write_array(self, element: Type, values: Any) -> None:
        start = len(self.data)
        self.data += b"\0\0\0\0"
        self.align(element.alignment)
        first = len(self.data)
        if element.code == "y":
            self.data += bytes(values)
        else:
            for value in values.items() if element.code == "{" else values:
                self.write(element, value)
        length = len(self.data) - first
        if length > LARGEST_ARRAY:
            raise InvalidFormat("a D-Bus array larger than 64 MiB")
        self.data[start : start + 4] = _UINT32.pack(length)


class Reader:
    """Reads values from ``data``; whatever is not as the specification has it raises ``InvalidFormat``."""

    __slots__ = ("big", "data", "fds", "position", "size")

    def __init__(self, data: bytes, *, big: bool = False, fds: Sequence[int] = ()) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0
        self.big = big
        self.fds = fds

    def read_all(self, signature: str) -> tuple[Any, ...]:
        """Return one value for each complete type of ``signature``; nothing may be left over."""
        values = tuple(self.read(one, 0) for one in parse_signature(signature))
        if self.position != self.size:
            raise InvalidFormat(f"{self.size - self.position} bytes too many in a D-Bus message")
        return values

    def align(self, alignment: int) -> None:
        """Skip padding, which is of zeros."""
        start = self.position
        self.position = start + (-start % alignment)
        if self.position > self.size or any(self.data[start : self.position]):
            raise InvalidFormat("bad padding in a D-Bus message")

    def read(self, one: Type, depth: int) -> Any:
        """Return one value, which lies in ``depth`` others."""
        if depth > DEEPEST_VALUE:
            raise InvalidFormat("a D-Bus message nested too deep")
        if self.position % one.alignment:
            self.align(one.alignment)
        code = one.code
        if code in ("s", "o", "g"):
            return self._read_string(code)
        if code == "v":
            return self._read_variant(depth)
        if code == "a":
            return self._read_array(one.parts[0], depth + 1)
        if code == "(":
            return tuple(self.read(part, depth + 1) for part in one.parts)
        value = self._read_number(code)
        if code == "b":
            if value > 1:
                raise InvalidFormat(f"a D-Bus boolean of {value}")
            return value == 1
        if code == "h":
            if value >= len(self.fds):
                raise InvalidFormat("a D-Bus message refers to a file descriptor that it does not carry")
            return self.fds[value]
        return value

    def _read_number(self, code: str) -> Any:
        number = (_BIG_NUMBERS if self.big else _NUMBERS)[code]
        end = self.position + number.size
        if end > self.size:
            raise InvalidFormat("a D-Bus message ends in the middle of a value")
        value = number.unpack_from(self.data, self.position)[0]
        self.position = end
        return value

    def _read_string(self, code: str) -> str:
        length = self._read_number("y" if code == "g" else "u")
        end = self.position + length
        if end >= self.size or self.data[end]:
            raise InvalidFormat("a D-Bus string that does not end where it should")
        raw = self.data[self.position : end]
        self.position = end + 1
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidFormat("a D-Bus string that is not UTF-8") from error
        if 0 in raw or (code == "o" and not is_object_path(text)):
            raise InvalidFormat(f'{text!r} is no value of the D-Bus type "{code}"')
        if code == "g":
            parse_signature(text)
        return text

    def _read_variant(self, depth: int) -> Variant:
        signature = self._read_string("g")
        types = parse_signature(signature)
        if len(types) != 1:
            raise InvalidFormat(f'a D-Bus variant of the type "{signature}"')
        return Variant(signature, self.read(types[0], depth + 1))

    def _read_array(self, element: Type, depth: int) -> Any:
        length = self._read_number("u")
        if self.position % element.alignment:
            self.align(element.alignment)
        end = self.position + length
        if length > LARGEST_ARRAY or end > self.size:
            raise InvalidFormat("a D-Bus array longer than its message")
        if element.code == "y":
            self.position = end
            return self.data[end - length : end]
        entry = element.code == "{"
        items = []
        while self.position < end:
            if entry:
                self.align(8)
                items.append((self.read(element.parts[0], depth), self.read(element.parts[1], depth)))
            else:
                items.append(self.read(element, depth))
        if self.position != end:
            raise InvalidFormat("a D-Bus array that ends in the middle of an element")
        return dict(items) if entry else items
