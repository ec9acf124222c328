"""Killing a verb at a chosen moment: all of it, only its main process, or only what it has started."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.places import Place

TARGETS = ("group", "main", "worker")


class Outcome:
    """How a killed verb ended: ``finished`` if it was faster than the kill."""

    def __init__(self, status: int, errors: str, *, finished: bool) -> None:
        self.status = status
        self.errors = errors
        self.finished = finished


def spread(count: int, duration: float, source: random.Random) -> list[float]:
    """Moments over the whole duration and a little beyond, one in each of ``count`` equal parts."""
    return [(number + source.random()) / count * duration * 1.1 for number in range(count)]


def kill_at(place: Place, words: Sequence[str], moment: float, target: str) -> Outcome:
    """Run a verb and send SIGKILL after ``moment`` seconds; a worker that is not there yet means the main process."""
    process = place.start(*words)
    with suppress(Exception):
        process.wait(moment)
    finished = process.poll() is not None
    if not finished or target == "group":
        for pid in _choose(process.pid, target):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, (words, moment, target, errors)
    return Outcome(process.returncode, errors, finished=finished)


def _choose(main: int, target: str) -> list[int]:
    if target == "main":
        return [main]
    if target == "group":
        return [
            int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _group_of(int(entry)) == main
        ]
    return list_descendants(main) or [main]


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def list_descendants(pid: int) -> list[int]:
    """All processes below ``pid``, its children first."""
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    for task in tasks:
        with suppress(OSError):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            found += [int(child) for child in children]
    return [*found, *(below for child in found for below in list_descendants(child))]
