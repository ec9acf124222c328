"""What docs/coming-from-podman.md says: of each verb, and of the options that are not there."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "coming-from-podman.md"
STATES = ("same", "differs", "not yet", "not needed")
_ROW = re.compile(r"^\| (`.*?) \| (.*?) \| (.*?) ?\|$", re.MULTILINE)


def read_states() -> dict[str, str]:
    """Return the state of each verb; ``pod …`` is that of a whole group."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Options")[0]
    return {verb: row[2] for row in _ROW.finditer(text) for verb in re.findall(r"`([^`]+)`", row[1])}


def read_missing_options(version: tuple[int, ...] | None = None) -> dict[str, set[str]]:
    """Return the options that are not there, by verb, of those that a version of Podman has; None: the newest."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Options")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for item in text.split("\n- ")[1:]:
        verb, *options = re.findall(r"`([^`]+)`", item)
        since = re.search(r"` of (\d+)\.(\d+):", item)
        if since is None or version is None or (int(since[1]), int(since[2])) <= version:
            found.setdefault(verb, set()).update(options)
    return found


def find_state(states: dict[str, str], verb: str) -> str | None:
    """Return the state of podman's verb; of ``container start`` it is that of ``start``. None if nothing is said."""
    group, _, name = verb.partition(" ")
    short = {"list": "ps" if group == "container" else "images", "rm": "rmi" if group == "image" else "rm"}
    candidates = [verb, f"{group} …", f"{verb.rpartition(' ')[0]} …"]
    if group in ("container", "image") and name:
        candidates += [short.get(name, name), f"{name} …"]
    return next((states[each] for each in candidates if each in states), None)
