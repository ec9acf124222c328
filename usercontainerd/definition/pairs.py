"""Tables whose keys are the user's own: environment, labels, annotations."""

from __future__ import annotations

from usercontainerd.definition.values import MAX_INTEGER, has_control_characters, report_type, take_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from usercontainerd.definition.place import Place

MAX_PARTS = 64  # of a label's name


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
        if isinstance(value, dict) and value and len(path) < MAX_PARTS:
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
