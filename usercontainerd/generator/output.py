"""Writing units and links into the directory that systemd.generator(7) gives us, which is empty and ours."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.generator.entry import Entry


def write_units(directory: str, entries: Iterable[Entry]) -> list[str]:
    """Write each entry's unit and links; return a line for each that could not be written."""
    failures = []
    made: set[str] = set()
    for entry in entries:
        try:
            for unit, text in entry.units().items():
                _write(f"{directory}/{unit}", text)
            for link in entry.links if entry.text else ():
                _write_link(directory, link, f"container@{entry.name}.service", made)
        except OSError as error:
            failures.append(f"{error.filename or directory}: cannot be written: {error.strerror}")
    return failures


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _write_link(directory: str, link: str, unit: str, made: set[str]) -> None:
    parent = link.rpartition("/")[0]
    if parent and parent not in made:
        try:
            os.mkdir(f"{directory}/{parent}", 0o755)
        except FileExistsError:
            pass
        made.add(parent)
    try:
        os.symlink(f"../{unit}" if parent else unit, f"{directory}/{link}")
    except FileExistsError:
        pass  # the same wish twice


def drop_interim_units(directory: str, written: str, created: Iterable[str]) -> None:
    """Remove the units that ``create`` put into ``directory`` before a generator knew their definitions.

    They would hide the ones just ``written``, which follow every change of the definitions (below ``created``).
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return
    markers = tuple(f"# Generated from {place}/" for place in created)
    for name in names:
        if not (
            name.startswith(("container@", "container-health@")) and os.path.lexists(f"{written}/{name}")
        ):
            continue
        try:
            with open(f"{directory}/{name}", encoding="utf-8", errors="surrogateescape") as file:
                ours = file.readline().startswith(markers)
            if ours:
                os.unlink(f"{directory}/{name}")
        except OSError:
            continue
