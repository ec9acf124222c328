"""What a run that failed teaches about the output: a line in the container's data directory.

``ask SECONDS INVOCATION``
    clean-up saw a run on the socket of the journal fail soon, which began then: the next ``prepare`` looks at what it
    wrote.
``pipe IMAGE``
    it could not open its output by name: this image gets a pipe from then on.
``none IMAGE``
    that was not it. The question is not put again for an hour, so that a container that fails all the time is not
    prepared all the time.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOON = 60.0  # seconds
ASK, PIPE, NONE = "ask", "pipe", "none"
_REST = 3600.0  # seconds


def ask_next_time(data: str, environment: Mapping[str, str], lived: float) -> bool:
    """Have the next ``prepare`` look at this run, which ``lived`` seconds; return whether there is to be one.

    ``environment`` is what systemd gives to ``ExecStopPost=``.
    """
    invocation = environment.get("INVOCATION_ID", "")
    if environment.get("SERVICE_RESULT", "success") == "success" or not invocation or lived > SOON:
        return False
    try:
        if time.time() - os.stat(_path(data)).st_mtime < _REST:
            return False
    except FileNotFoundError:
        pass
    write_lesson(data, ASK, f"{time.time() - lived:.3f} {invocation}")
    return True


def read_lesson(data: str) -> tuple[str, str]:
    """Return the kind of what is known and what it is about; two empty texts if that is nothing."""
    try:
        with open(_path(data), encoding="utf-8") as file:
            kind, _, subject = file.read(200).rstrip("\n").partition(" ")
    except (OSError, ValueError):
        return "", ""
    return kind, subject


def write_lesson(data: str, kind: str, subject: str) -> None:
    """Remember; that it cannot be written is no reason to fail."""
    try:
        with open(f"{_path(data)}.new", "w", encoding="utf-8") as file:
            file.write(f"{kind} {subject}\n")
        os.rename(f"{_path(data)}.new", _path(data))
    except OSError:
        pass


def _path(data: str) -> str:
    return f"{data}/output-lesson"
