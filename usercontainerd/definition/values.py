"""From what ``tomllib`` gives to what a key means: one converter for each kind of value.

A converter returns the value, or None after it has reported what is wrong. Lists report every element.
"""

from __future__ import annotations

import math

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.sizes import parse_size
from usercontainerd.base.times import parse_duration
from usercontainerd.definition.schema import CHOICES, KEYS, SYNONYMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.definition.place import Place

MAX_LINE = 16 * 1024
MAX_COMMAND = 32 * 1024  # characters that shlex splits in a moment
MAX_ARGUMENT = 127 * 1024  # execve(2): 128 KiB for one string; the rest is for a variable's name
MIN_MEMORY = 1024 * 1024  # less than any process needs: a unit was forgotten
MAX_PIDS = 4194304  # the kernel's PID_MAX_LIMIT
MIN_CPUS = 0.01  # CPUQuota=1%
MAX_CPUS = 8192  # the kernel's largest NR_CPUS
INFINITY = "infinity"  # systemd's word for no limit
UNLIMITED = -1
MAX_INTEGER = 2**63 - 1  # TOML's; tomllib takes larger ones
_TYPES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "an array",
    dict: "a table",
}


def name_type(value: object) -> str:
    """Return TOML's word for the type of ``value``."""
    return _TYPES.get(type(value), "a date or time")


def report_type(wanted: str, value: object, place: Place) -> None:
    """Report a wrong type. In a free table, a key of the schema was probably meant for the top of the file."""
    last = place.path[-1]
    stray = (
        len(place.path) == 2 and place.path[0] in {"environment", "labels", "annotations"} and last in KEYS
    )
    advice = f"; if the key {last} is meant, it belongs above the first [table]" if stray else ""
    place.error(f"must be {wanted}, not {name_type(value)}{advice}")


# Text


def take_text(value: object, place: Place, wanted: str = "a string") -> str | None:
    """Any text that can be handed to a program: all but NUL."""
    if not isinstance(value, str):
        report_type(wanted, value, place)
        return None
    if "\0" in value:
        place.error("must not contain a NUL character")
        return None
    return place.expand(value)


def take_line(value: object, place: Place, wanted: str = "a string") -> str | None:
    """Text of one line that is not empty and has no control characters."""
    text = take_text(value, place, wanted)
    if text is None:
        return None
    if has_control_characters(text):
        place.error("must not contain newlines or other control characters")
        return None
    if not text.strip():
        place.error("must not be empty")
        return None
    if len(text) > MAX_LINE:
        place.error(f"is longer than {MAX_LINE} characters")
        return None
    return text


def has_control_characters(text: str) -> bool:
    """True if there is a newline, an escape or the like."""
    return not text.isprintable() and any(
        c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in text
    )


def take_boolean(value: object, place: Place) -> bool | None:
    """``true`` or ``false``."""
    if isinstance(value, bool):
        return value
    report_type("true or false", value, place)
    return None


def take_choice(kind: str) -> Callable[[object, Place], str | None]:
    """Return the converter for a key with few possible words."""
    choices, synonyms = CHOICES[kind], SYNONYMS.get(kind, {})

    def convert(value: object, place: Place) -> str | None:
        wanted = "one of " + ", ".join(f'"{choice}"' for choice in choices)
        text = take_text(value, place, wanted)
        if text is None or text in choices:
            return text
        if text in synonyms:
            return synonyms[text]
        place.error(f'"{text}" is not {wanted}', place.suggest(text, (*choices, *synonyms)))
        return None

    return convert


def take_argv(value: object, place: Place) -> tuple[str, ...] | None:
    """A list of words, or a text that is split as a shell would split it."""
    if not isinstance(value, str):
        return take_list(value, place, take_argument, "a string or an array of strings")
    if len(value) > MAX_COMMAND:
        place.error("is too long to be split; give a list of words instead")
        return None
    words = _split(value, place)
    arguments = [take_argument(word, place) for word in words or ()]
    return (
        None if words is None or None in arguments else tuple(each for each in arguments if each is not None)
    )


def _split(text: str, place: Place) -> list[str] | None:
    if text.isascii() and text.isprintable() and not any(c in text for c in "'\"\\"):
        return text.split()
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        place.error(f"cannot be split as a shell would: {str(error).lower()}; give a list of words instead")
        return None


def take_argument(value: object, place: Place, wanted: str = "a string") -> str | None:
    """One word of a command line, or a variable's value."""
    text = take_text(value, place, wanted)
    if text is not None and len(text.encode(errors="replace")) > MAX_ARGUMENT:
        place.error("is longer than the kernel takes (128 KiB)")
        return None
    return text


def take_list(
    value: object, place: Place, convert: Callable[[Any, Place], Any], wanted: str = "an array of strings"
) -> tuple[Any, ...] | None:
    """Convert each element; all must be good."""
    if not isinstance(value, list):
        report_type(wanted, value, place)
        return None
    items = [convert(item, place.at(index)) for index, item in enumerate(value)]
    return None if None in items else tuple(items)


# Numbers


def take_integer(value: object, place: Place, low: int, high: int, unit: str = "") -> int | None:
    """An integer of a range."""
    if isinstance(value, bool) or not isinstance(value, int):
        report_type("an integer", value, place)
        return None
    if low <= value <= high:
        return value
    shown = f"{value} is " if abs(value) <= MAX_INTEGER else ""
    place.error(f"{shown}not between {low} and {high}{unit}")
    return None


def take_weight(value: object, place: Place) -> int | None:
    """A weight of systemd.resource-control(5)."""
    return take_integer(value, place, 1, 10000)


def take_pids(value: object, place: Place) -> int | None:
    """A number of tasks; -1 stands for no limit."""
    return UNLIMITED if value == INFINITY else take_integer(value, place, 1, MAX_PIDS, ', nor "infinity"')


def take_cpus(value: object, place: Place) -> float | None:
    """Processors, 0.5 is half of one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        report_type("a number", value, place)
        return None
    if isinstance(value, float) and not math.isfinite(value):
        place.error("must be finite")
        return None
    if MIN_CPUS <= value <= MAX_CPUS:
        return float(value)
    shown = f"{value} is " if abs(value) <= MAX_INTEGER else ""
    place.error(f"{shown}not between {MIN_CPUS} and {MAX_CPUS} processors")
    return None


def take_size(value: object, place: Place) -> int | None:
    """Bytes: a number, or a text with a unit."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        report_type('a size such as "32M"', value, place)
        return None
    try:
        return parse_size(place.expand(value) if isinstance(value, str) else value)
    except InvalidArgument as error:
        place.error(f"{error.what}; {error.hint}")
        return None


def take_swap(value: object, place: Place) -> int | None:
    """A size; -1 stands for no limit."""
    return UNLIMITED if value == INFINITY else take_size(value, place)


def take_memory(value: object, place: Place) -> int | None:
    """A size that a process can live in."""
    size = take_size(value, place)
    if size is None or size >= MIN_MEMORY:
        return size
    place.error(f"{size} bytes are too few for any process; at least 1M is needed, and units are K, M, G")
    return None


def take_timeout(value: object, place: Place) -> float | None:
    """Seconds: a number, or a text of systemd.time(7), of which ``infinity`` is one."""
    if value == INFINITY:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        report_type('a duration such as 10 or "1min 30s"', value, place)
        return None
    try:
        return parse_duration(place.expand(value) if isinstance(value, str) else value)
    except InvalidArgument as error:
        place.error(f"{error.what}; {error.hint}")
        return None
