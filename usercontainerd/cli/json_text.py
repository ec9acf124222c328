"""JSON for terminals and programs: readable, and no character in it can steer a terminal."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dump_json(value: Any, indent: int | None = None) -> str:
    """Return ``value`` as JSON. Keys that begin with ``_`` are ours alone and are left out at the top."""
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if not str(key).startswith("_")}
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    # json escapes what is below a blank; C1 controls and bidirectional marks are left.
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))
