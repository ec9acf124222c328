"""What reaches the user's terminal: one place that writes, so that one place decides how odd text is shown."""

from __future__ import annotations

import os

from usercontainerd.base.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GAP = 3  # blanks between two columns, as docker and podman have it


def write_output(text: str) -> None:
    """Write to standard output. Raises ``BrokenPipeError`` when nobody reads any more."""
    _write(1, text)


def write_error(text: str) -> None:
    """Write to standard error; a closed one is no reason to fail."""
    try:
        _write(2, text)
    except OSError:
        pass


def _write(fd: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(fd, data) :]


def render_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as docker prints them; no headings, no line for them. Cells are made printable here."""
    lines = [[printable(cell) for cell in row] for row in rows]
    if headings:
        lines.insert(0, list(headings))
    if not lines:
        return ""
    widths = [max(map(len, column)) + GAP for column in zip(*lines, strict=True)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def truncate(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, the last of them an ellipsis, as docker does."""
    return text if len(text) <= length else text[: length - 1] + "…"
