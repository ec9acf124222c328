"""Typed access to JSON from outside: errors say where in the document they are (``manifest.layers[3].size``).

Stricter than ``json.loads``: UTF-8 only, no duplicate keys (readers would disagree on which counts), no NaN,
no lone surrogates, bounded size and depth. Keys are case-sensitive, as RFC 8259 has them.
"""

from __future__ import annotations

import json

from usercontainerd.base.errors import InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

MAX_DEPTH = 64
_MISSING = object()


def parse_json(data: bytes, name: str, *, limit: int, source: str | None = None) -> JsonValue:
    """Parse ``data``; ``name`` is what paths in errors begin with, ``limit`` the largest size in bytes.

    Raises ``InvalidFormat``.
    """
    if len(data) > limit:
        raise InvalidFormat(f"{name} is {len(data)} bytes long, more than the {limit} allowed", where=source)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidFormat(f"{name} is nested too deeply", where=source) from None
    except ValueError as error:
        raise InvalidFormat(f"{name} is not valid JSON: {error}", where=source) from None
    _check_depth(value, name, source)
    return JsonValue(value, name, source)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:80]!r} occurs twice")
            seen.add(key)
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _check_depth(value: object, name: str, source: str | None) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                below.extend(v for v in item if isinstance(v, (dict, list)))
        if not below:
            return
        level = below
    raise InvalidFormat(f"{name} is nested more than {MAX_DEPTH} levels deep", where=source)


class JsonValue:
    """One value of a document together with its path. ``null`` counts as absent, as Go's decoders have it."""

    __slots__ = ("path", "raw", "source")

    def __init__(self, raw: object, path: str, source: str | None = None) -> None:
        self.raw = raw
        self.path = path
        self.source = source

    def fail(self, what: str) -> NoReturn:
        """Raise ``InvalidFormat`` about this value."""
        raise InvalidFormat(f"{self.path}: {what}", where=self.source)

    def _expected(self, expected: str) -> NoReturn:
        names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
        self.fail(f"expected {expected}, found {names.get(type(self.raw), 'a number')}")

    @property
    def is_null(self) -> bool:
        """True for ``null`` and for what is absent."""
        return self.raw is None

    def has(self, key: str) -> bool:
        """Tell whether this object has ``key`` with a value other than null."""
        return self._object().get(key) is not None

    def get(self, key: str) -> JsonValue:
        """Return the member ``key`` (a null value if absent); this value must be an object."""
        return JsonValue(self._object().get(key), f"{self.path}.{key}", self.source)

    def _object(self) -> dict[str, object]:
        if not isinstance(self.raw, dict):
            self._expected("an object")
        return self.raw

    def items(self) -> Iterator[tuple[str, JsonValue]]:
        """Yield the members of this object (none if null)."""
        if self.raw is None:
            return
        for key, value in self._object().items():
            _check_text(key, self)
            yield (
                key,
                JsonValue(
                    value, f"{self.path}[{key!r}]" if len(key) < 80 else f"{self.path}[…]", self.source
                ),
            )

    def elements(self, *, limit: int = 100_000) -> Iterator[JsonValue]:
        """Yield the elements of this array (none if null); more than ``limit`` is an error."""
        if self.raw is None:
            return
        if not isinstance(self.raw, list):
            self._expected("an array")
        if len(self.raw) > limit:
            self.fail(f"{len(self.raw)} elements are more than the {limit} allowed")
        for index, value in enumerate(self.raw):
            yield JsonValue(value, f"{self.path}[{index}]", self.source)

    def text(self, default: str | None = None) -> str:
        """Return a string; ``default`` if null (without one, null is an error)."""
        if self.raw is None and default is not None:
            return default
        if not isinstance(self.raw, str):
            self._expected("a string")
        return _check_text(self.raw, self)

    def optional_text(self) -> str | None:
        """Return a string, or None if null or empty."""
        return None if self.raw is None else self.text() or None

    def integer(self, default: int | None = None, *, minimum: int = 0, maximum: int = (1 << 63) - 1) -> int:
        """Return a whole number within the bounds."""
        if self.raw is None and default is not None:
            return default
        if not isinstance(self.raw, int) or isinstance(self.raw, bool):
            self._expected("a whole number")
        if not minimum <= self.raw <= maximum:
            self.fail(f"must be between {minimum} and {maximum}")
        return self.raw

    def boolean(self, default: bool = False) -> bool:
        """Return a boolean."""
        if self.raw is None:
            return default
        if not isinstance(self.raw, bool):
            self._expected("a boolean")
        return self.raw

    def texts(self, *, limit: int = 100_000) -> tuple[str, ...]:
        """Return an array of strings (empty if null)."""
        return tuple(element.text() for element in self.elements(limit=limit))

    def optional_texts(self) -> tuple[str, ...] | None:
        """Return an array of strings, or None if null."""
        return None if self.raw is None else self.texts()

    def text_map(self) -> tuple[tuple[str, str], ...]:
        """Return an object whose values are strings, as pairs in the document's order."""
        return tuple((key, value.text("")) for key, value in self.items())


def _check_text(text: str, value: JsonValue) -> str:
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        value.fail("holds half of a surrogate pair")
    return text
