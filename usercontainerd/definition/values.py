"""From what ``tomllib`` gives to what a key means: one converter for each kind of value.

A converter returns the value, or None after it has reported what is wrong. Lists report every element.
"""

from __future__ import annotations

import math
import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.sizes import parse_size
from usercontainerd.base.times import parse_duration
from usercontainerd.definition.schema import CHOICES, KEYS, SYNONYMS
from usercontainerd.definition.vocabulary import normalise_capability, normalise_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from usercontainerd.definition.place import Place

_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
MAX_ID = 2**32 - 2  # (uid_t) -1 is no ID
MAX_HOSTNAME = 64  # the kernel's HOST_NAME_MAX
MAX_LINE = 16 * 1024
MAX_COMMAND = 32 * 1024  # characters that shlex splits in a moment
MAX_ARGUMENT = 127 * 1024  # execve(2): 128 KiB for one string; the rest is for a variable's name
MAX_LABEL_PARTS = 64
MAX_PATH = 4095  # PATH_MAX without its NUL
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


def take_image(value: object, place: Place) -> str | None:
    """An image's reference; whether it exists shows when it is pulled."""
    text = take_line(value, place)
    if text is None:
        return None
    reason = find_image_fault(text)
    if reason is not None:
        place.error(f'"{text}" is no image reference: {reason}')
        return None
    return text


def find_image_fault(text: str) -> str | None:
    """Say what breaks the grammar of references (distribution's reference package), or None."""
    if "://" in text:
        return "it has no scheme; write it as registry/name:tag"
    rest, at, digest = text.partition("@")
    if at:
        algorithm, colon, encoded = digest.partition(":")
        if not (
            colon and algorithm.isalnum() and len(encoded) >= 32 and not encoded.strip("0123456789abcdef")
        ):
            return "what follows @ is no digest such as sha256:0123…"
    path, colon, tag = rest.rpartition(":")
    if colon and "/" not in tag:
        if not 0 < len(tag) <= 128 or tag.strip(_ALNUM + "_.-") or tag[0] in ".-":
            return "what follows the last colon is no tag"
        rest = path
    first, slash, name = rest.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = rest
    elif first.strip(_ALNUM + ".:-[]"):
        return "the registry's name has impossible characters"
    for part in name.split("/"):
        if not part:
            return "a part of the name is empty"
        if part != part.lower():
            return "the name must be in lower case"
        if part.strip("abcdefghijklmnopqrstuvwxyz0123456789._-") or part[0] in "._-" or part[-1] in "._-":
            return "the name has impossible characters"
    return None


def take_user(value: object, place: Place) -> str | None:
    """A name or number; with a group after a colon, as for docker."""
    text = str(value) if _is_id(value) else take_line(value, place, "a user's name or number")
    if text is None:
        return None
    user, colon, group = text.partition(":")
    if _is_account(user) and (not colon or _is_account(group)):
        return text
    place.error(f'"{text}" is no user: write a name or a number, and a group after a colon')
    return None


def take_group(value: object, place: Place) -> str | None:
    """A group's name or number."""
    text = str(value) if _is_id(value) else take_line(value, place, "a group's name or number")
    if text is None or _is_account(text):
        return text
    place.error(f'"{text}" is no group: write a name or a number')
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID


def _is_account(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return len(text) <= 10 and int(text) <= MAX_ID
    return 0 < len(text) <= 256 and text[0] != "-" and not text.rstrip("$").strip(_ALNUM + "_.-")


def take_hostname(value: object, place: Place) -> str | None:
    """A host name (hostname(7))."""
    text = take_line(value, place)
    if text is None:
        return None
    labels = text.split(".")
    good = all(
        0 < len(x) <= 63 and not x.strip(_ALNUM + "-_") and x[0] != "-" and x[-1] != "-" for x in labels
    )
    if good and len(text) <= MAX_HOSTNAME:
        return text
    place.error(f'"{text}" is no host name: letters, digits and -, in parts with dots between, at most 64')
    return None


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


# Words that the kernel knows


def take_signal(value: object, place: Place) -> str | None:
    """A signal by name or number."""
    text = str(value) if _is_id(value) else take_line(value, place, "a signal's name or number")
    if text is None:
        return None
    signal = normalise_signal(text)
    if signal is None:
        from usercontainerd.definition.vocabulary import SIGNALS

        words = (*SIGNALS, *(name.removeprefix("SIG") for name in SIGNALS))
        place.error(f'"{text}" is no signal', place.suggest(text, words))
    return signal


def take_capability(value: object, place: Place) -> str | None:
    """A capability by name, with or without CAP_, in any case."""
    text = take_line(value, place, "a capability's name")
    if text is None:
        return None
    capability = normalise_capability(text)
    if capability is None:
        from usercontainerd.definition.vocabulary import CAPABILITIES

        names = sorted((*CAPABILITIES, *(name.removeprefix("CAP_") for name in CAPABILITIES)))
        place.error(f'"{text}" is no capability', place.suggest(text, names))
    return capability


# Paths


def take_host_path(value: object, place: Place) -> str | None:
    """An absolute path; ``~/`` is the owner's home, a relative one starts at the definition's directory."""
    text = take_line(value, place, "a path")
    return None if text is None else resolve_host_path(text, place)


def resolve_host_path(text: str, place: Place) -> str | None:
    """Make a path of the host absolute, by its text alone."""
    reading = place.reading
    if text == "~" or text.startswith("~/"):
        text = reading.owner.home + text[1:]
    elif text.startswith("~"):
        place.error('only "~/" is understood, not another user\'s home')
        return None
    path = os.path.normpath(os.path.join(reading.directory, text))
    if path.startswith("//"):  # POSIX keeps two slashes
        path = path[1:]
    if len(path.encode(errors="replace")) > MAX_PATH:
        place.error("the path is too long")
        return None
    return path


def take_container_path(value: object, place: Place) -> str | None:
    """An absolute path in the container."""
    text = take_line(value, place, "a path")
    return None if text is None else check_container_path(text, place)


def check_container_path(text: str, place: Place) -> str | None:
    """Return the path in the container without needless slashes; report one that is relative or climbs."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/"):
        place.error(f'"{text}" is not absolute; a path in the container starts with /')
    elif ".." in parts:
        place.error(f'"{text}" must not contain ".."')
    elif has_control_characters(text) or len(text.encode(errors="replace")) > MAX_PATH:
        place.error("the path is too long or contains control characters")
    else:
        return "/" + "/".join(parts)
    return None


def take_seccomp(value: object, place: Place) -> str | None:
    """``default``, ``unconfined``, or a profile's path."""
    text = take_line(value, place)
    if text is None or text in {"default", "unconfined"}:
        return text
    if "/" not in text:
        place.error(f'"{text}" is neither "default" nor "unconfined" nor a path with a /')
        return None
    return resolve_host_path(text, place)


# Tables of the user's own names


def take_environment(value: object, place: Place) -> dict[str, str] | None:
    """Variables: text, integers or booleans."""
    if not isinstance(value, dict):
        report_type('a table of NAME = "value"', value, place)
        return None
    return _take_pairs([((name,), each) for name, each in value.items()], place, _check_variable)


def take_labels(value: object, place: Place) -> dict[str, str] | None:
    """Labels; ``com.example.team = "a"`` needs no quotes around the name, nested tables are joined with dots."""
    if not isinstance(value, dict):
        report_type('a table of NAME = "value"', value, place)
        return None
    return _take_pairs(_flatten(value), place, _check_label)


def _flatten(table: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    waiting: list[tuple[tuple[str, ...], Any]] = [((name,), value) for name, value in reversed(table.items())]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value and len(path) < MAX_LABEL_PARTS:
            waiting.extend(((*path, part), each) for part, each in reversed(value.items()))
        else:
            yield path, value


def _take_pairs(
    items: Iterable[tuple[tuple[str, ...], object]], place: Place, check: Callable[[str], str | None]
) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    good = True
    for path, each in items:
        name = ".".join(path)
        where = place.at_path(path)
        fault = "is given twice" if name in pairs else check(name)
        if fault is not None:
            where.error(fault)
        text = None
        if isinstance(each, bool):
            text = "true" if each else "false"
        elif isinstance(each, int) and abs(each) <= MAX_INTEGER:
            text = str(each)
        else:
            wanted = "a string, an integer or a boolean"
            text = take_argument(each, where, f"{wanted} (quote it)" if isinstance(each, float) else wanted)
        good = good and fault is None and text is not None
        pairs[name] = text or ""
    return pairs if good else None


def _check_variable(name: str) -> str | None:
    if not name:
        return "a variable needs a name"
    if "=" in name:
        return "a variable's name must not contain ="
    if has_control_characters(name) or name != name.strip():
        return "a variable's name must not contain control characters or end in blanks"
    return None


def _check_label(name: str) -> str | None:
    if not name.strip():
        return "a label needs a name"
    if has_control_characters(name) or "=" in name:
        return "a label's name must not contain = or control characters"
    return None
