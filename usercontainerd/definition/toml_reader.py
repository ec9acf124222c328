"""From TOML text to a ``Definition``: all that is wrong is collected, with file, line and key. Pure.

Several texts make one definition: the file and its drop-ins. Tables are merged key by key, lists grow (an empty list
takes back what came before), a mount or a port replaces an earlier file's on the same target or the same port of the
host, and anything else is replaced: what systemd's drop-ins and Compose's overrides do.
"""

from __future__ import annotations

import os

from usercontainerd.definition.checks import check_layers
from usercontainerd.definition.diagnostic import Diagnostic, Severity, has_errors
from usercontainerd.definition.layers import Layers
from usercontainerd.definition.model import Definition
from usercontainerd.definition.place import Place, Reading, SourceText
from usercontainerd.definition.schema import KEYS, TABLES, find_key
from usercontainerd.definition.values import name_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from usercontainerd.definition.specifiers import Owner

__all__ = ["MAX_SIZE", "SourceText", "parse_definition", "parse_table"]

MAX_SIZE = 1024 * 1024  # characters or bytes of one file
MAX_DOTS = 1000  # tomllib needs the square of a key's parts in time and memory
MAX_KEY_PARTS = 64


def parse_definition(
    name: str, files: Sequence[SourceText], owner: Owner
) -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    """Return what ``files`` (the definition, then its drop-ins) mean for container ``name``, and every problem.

    The definition is None if one of the problems is an error. Nothing is raised for any text. ``name`` decides what
    ``%i`` and its like stand for; a template's own name, ``web@``, may be given to verify it.
    """
    sources = list(files)
    if not sources:
        return None, (Diagnostic(name, 0, "", Severity.ERROR, "no file to read"),)
    reading = Reading(name, os.path.dirname(sources[0].path), owner)
    return _read_tables(name, [(source, _parse_toml(source, reading)) for source in sources], reading)


def parse_table(
    name: str, table: dict[str, Any], owner: Owner, directory: str
) -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    """Return what ``table`` means, which has the keys and types of a TOML file but comes from elsewhere.

    For a command line, whose ``-p`` and ``-v`` are entries of ``ports`` and ``mounts``: one set of rules serves
    both. Text is taken as it is (no ``%`` specifiers), relative paths start at ``directory``, and the diagnostics
    have neither file nor line.
    """
    reading = Reading(name, directory, owner, literal=True)
    return _read_tables(name, [(SourceText("", ""), table)], reading)


def _read_tables(
    name: str, tables: list[tuple[SourceText, dict[str, Any] | None]], reading: Reading
) -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    sources = [source for source, _ in tables]
    layers = Layers()
    for source, table in tables:
        if table is not None:
            _take_table(table, Place(reading, source, ()), layers)
    if "image" not in layers.places and all(table is not None for _, table in tables):
        place = Place(reading, sources[0], ("image",))
        place.error('is missing, as in image = "docker.io/library/nginx:1.27"')
    check_layers(layers)
    diagnostics = reading.diagnostics(sources)
    if has_errors(diagnostics):
        return None, diagnostics
    return layers.build(name, tuple(source.path for source in sources if source.path)), diagnostics


def _parse_toml(source: SourceText, reading: Reading) -> dict[str, Any] | None:
    text = source.text
    if len(text) > MAX_SIZE:
        reading.report(source, 0, Severity.ERROR, f"is larger than {MAX_SIZE >> 20} MiB")
        return None
    if text.count(".") > MAX_DOTS and (line := _find_long_key(text)):
        reading.report(source, line, Severity.ERROR, f"a key has more than {MAX_KEY_PARTS} parts")
        return None
    import tomllib  # 4 ms, that a table of a command line's needs not

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _read_toml_error(str(error), text)
        reading.report(source, line, Severity.ERROR, message)
    except RecursionError:
        reading.report(source, 0, Severity.ERROR, "is nested too deeply")
    except ValueError as error:  # integers of thousands of digits, for one
        reading.report(source, 0, Severity.ERROR, f"is no TOML that can be read: {error}")
    return None


def _read_toml_error(message: str, text: str) -> tuple[str, int]:
    """Split ``Invalid value (at line 3, column 5)`` into what and line."""
    what, found, position = message.rpartition(" (at ")
    if not found:
        return message, 0
    digits = position.removeprefix("line ").partition(",")[0]
    line = int(digits) if digits.isdigit() else max(1, text.rstrip().count("\n") + 1)
    return f"{what[:1].lower()}{what[1:]}", line


def _find_long_key(text: str) -> int:
    """Return the line of a dotted key with very many parts, or 0."""
    from usercontainerd.definition.lines import find_long_key

    return find_long_key(text, MAX_KEY_PARTS)


def _take_table(table: dict[str, Any], place: Place, layers: Layers, prefix: str = "") -> None:
    for name, value in table.items():
        full = prefix + name
        key = KEYS.get(full)
        where = place.at(name)
        if key is not None and "." not in name:
            layers.take(full, key.kind, value, where)
        elif not prefix and name in TABLES:
            if isinstance(value, dict):
                _take_table(value, where, layers, f"{name}.")
            else:
                where.error(f"must be a table, not {name_type(value)}")
        elif place.reading.is_full:
            where.error("unknown key")
        else:
            _report_unknown(name, prefix, where)


def _report_unknown(name: str, prefix: str, place: Place) -> None:
    likely, explanation = find_key(name)
    if explanation is not None:
        place.error(f"unknown key: {explanation}")
    elif likely is None:
        place.error("unknown key")
    elif likely == name and prefix:
        place.error(f"unknown key in [{prefix[:-1]}]; {name} belongs above the first [table]")
    else:
        place.error("unknown key", likely.removeprefix(prefix))
