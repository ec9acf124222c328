"""Sizes in bytes: read as docker's ``--memory`` reads them, shown as ``docker images`` shows them."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument

_FACTORS = {"": 1, "b": 1}
_FACTORS |= {
    letter + suffix: 1024**power for power, letter in enumerate("kmgtpe", 1) for suffix in ("", "b", "ib")
}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
MAX_SIZE = 2**63 - 1  # what the kernel's counters hold
_HINT = 'write bytes as a number, or a text such as "512k", "32M" or "1.5G"'


def parse_size(value: str | int) -> int:
    """Return bytes: ``32M``, ``1.5GiB``, ``512kb`` or a number of bytes; units are docker's, powers of 1024.

    Raises InvalidArgument for anything else, a negative size included.
    """
    if isinstance(value, int):
        size = value
    else:
        text = value.strip().lower()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        factor = _FACTORS.get(text[len(number) :])
        number = number.rstrip()
        digits = number.replace(".", "", 1)
        plausible = digits.isascii() and digits.isdigit() and number[0] != "." and len(number) <= 20
        if factor is None or not plausible:
            raise InvalidArgument(f'"{value}" is not a size', hint=_HINT)
        whole, _, fraction = number.partition(".")
        size = int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)
    if size < 0:
        raise InvalidArgument("a size cannot be negative", hint=_HINT)
    if size > MAX_SIZE:
        raise InvalidArgument("a size of more than 2^63-1 bytes is impossible", hint=_HINT)
    return size


def render_size(size: int) -> str:
    """Return the shortest text without loss that ``parse_size`` reads: 33554432 is ``32M``."""
    for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{letter}"
    return str(size)


def format_size(size: float, *, digits: int = 3, gap: str = " ") -> str:
    """Return ``size`` for people, in decimal units, as ``docker images`` does: ``4.26 MB``."""
    number = float(size)
    unit = 0
    while unit < len(_UNITS) - 1 and number >= 1000 - 0.5 * 10 ** (3 - digits):  # 999.6 kB would be 1e+03 kB
        number /= 1000
        unit += 1
    return f"{number:.{digits}g}{gap}{_UNITS[unit]}"
