"""Instructions of a Containerfile that change an image's configuration: ``--change`` of import and commit. Pure."""

from __future__ import annotations

import copy
import json
import posixpath
import shlex

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.definition.vocabulary import normalise_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

SHELL = ("/bin/sh", "-c")


def apply_changes(changes: Sequence[str], former: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the ``config`` of an image (OCI config.md) that such instructions make, of a ``former`` one if given.

    ``CMD sleep 1``, ``CMD ["sleep", "1"]``, also ``CMD=sleep 1``. Raises ``InvalidArgument`` naming the instruction.
    """
    config: dict[str, Any] = copy.deepcopy({k: v for k, v in (former or {}).items() if v is not None})
    instructions = [split_change(change) for change in changes]
    if any(name == "ENTRYPOINT" for name, _ in instructions):
        config.pop("Cmd", None)  # it was for another program: docker has it so, too
    for change, (instruction, value) in zip(changes, instructions, strict=True):
        apply = _INSTRUCTIONS.get(instruction)
        if apply is None:
            raise InvalidArgument(
                f"--change {change!r}: {instruction} is not possible here",
                hint=f"possible are {', '.join(sorted(_INSTRUCTIONS))}",
            )
        try:
            apply(config, value)
        except ValueError as error:
            raise InvalidArgument(f"--change {change!r}: {error}") from None
    return config


def split_change(change: str) -> tuple[str, str]:
    """Split at the first blank or equals sign. Pure."""
    change = change.strip()
    end = next((at for at, letter in enumerate(change) if letter.isspace() or letter == "="), len(change))
    return change[:end].upper(), change[end + 1 :].strip()


def _parse_array(value: str) -> list[str] | None:
    """A JSON array of strings; None if it is none, then it is plain text (as docker has it)."""
    if not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except ValueError:
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    return words


def _parse_words(value: str) -> list[str]:
    words = _parse_array(value)
    words = shlex.split(value) if words is None else words
    if not words:
        raise ValueError("it needs a value")
    return words


def _parse_command(value: str) -> list[str]:
    words = _parse_array(value)
    if words is None:
        return [*SHELL, value] if value else []
    return words


def _parse_pairs(value: str) -> list[tuple[str, str]]:
    """``A=b C="d e"``, or ``A b c`` as docker had it first."""
    first = value.split(None, 1)
    if first and "=" not in first[0]:
        return [(first[0], first[1] if len(first) > 1 else "")]
    pairs = []
    for word in shlex.split(value):
        name, equals, text = word.partition("=")
        if not name or not equals:
            raise ValueError(f"{word!r} is not NAME=VALUE")
        pairs.append((name, text))
    if not pairs:
        raise ValueError("it needs NAME=VALUE")
    return pairs


def _set_command(config: dict[str, Any], value: str) -> None:
    config["Cmd"] = _parse_command(value)


def _set_entrypoint(config: dict[str, Any], value: str) -> None:
    config["Entrypoint"] = _parse_command(value)


def _add_environment(config: dict[str, Any], value: str) -> None:
    known: list[str] = config.setdefault("Env", [])
    for name, text in _parse_pairs(value):
        known[:] = [each for each in known if each.partition("=")[0] != name]
        known.append(f"{name}={text}")


def _add_ports(config: dict[str, Any], value: str) -> None:
    for word in _parse_words(value):
        port, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        first, _, last = port.partition("-")
        if protocol not in ("tcp", "udp", "sctp"):
            raise ValueError(f"{protocol!r} is no protocol: tcp, udp or sctp")
        if not all(p.isdecimal() and 0 < int(p) < 65536 for p in (first, last or first)):
            raise ValueError(f"{port!r} is not a port")
        config.setdefault("ExposedPorts", {})[f"{port}/{protocol}"] = {}


def _add_labels(config: dict[str, Any], value: str) -> None:
    config.setdefault("Labels", {}).update(_parse_pairs(value))


def _set_stop_signal(config: dict[str, Any], value: str) -> None:
    if normalise_signal(value) is None:
        raise ValueError(f"{value!r} is not a signal")
    config["StopSignal"] = value


def _set_user(config: dict[str, Any], value: str) -> None:
    if not value or len(value.split()) > 1:
        raise ValueError("it needs USER or USER:GROUP")
    config["User"] = value


def _add_volumes(config: dict[str, Any], value: str) -> None:
    for path in _parse_words(value):
        config.setdefault("Volumes", {})[path] = {}


def _set_directory(config: dict[str, Any], value: str) -> None:
    # Relative to the one before it.
    config["WorkingDir"] = posixpath.join("/", config.get("WorkingDir") or "", value)


def _add_trigger(config: dict[str, Any], value: str) -> None:
    if not value:
        raise ValueError("it needs an instruction")
    config.setdefault("OnBuild", []).append(value)


_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _set_command,
    "ENTRYPOINT": _set_entrypoint,
    "ENV": _add_environment,
    "EXPOSE": _add_ports,
    "LABEL": _add_labels,
    "ONBUILD": _add_trigger,
    "STOPSIGNAL": _set_stop_signal,
    "USER": _set_user,
    "VOLUME": _add_volumes,
    "WORKDIR": _set_directory,
}
