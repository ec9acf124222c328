"""Classes of plain values that compare by what they hold.

As dataclasses they would take 5 ms of every pull to be made; most pulls only need a few of them.
"""

from __future__ import annotations


class Value:
    """``FIELDS`` names what it holds, in the order of the constructor's arguments."""

    __slots__ = ()
    FIELDS: tuple[str, ...] = ()

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.FIELDS)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Value) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._key()!r}"
