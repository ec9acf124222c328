"""The generator's units in ``$XDG_RUNTIME_DIR/systemd/user``, for users whose systemd has no generator of ours.

That directory is not emptied before each reload, and not ours alone: what we have written is known by its first
line, and links by their relative target. Everything else (``systemctl --user --runtime`` makes some) is left as it is.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.systemd.renewal import GENERATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from usercontainerd.generator.entry import Entry

MARKER = GENERATED
_DEPENDENCIES = (".wants", ".requires", ".upholds")


class Written:
    """What a run did: whether anything ``changed``, and a line for each of the ``failures``."""

    __slots__ = ("changed", "failures")

    def __init__(self) -> None:
        self.changed = False
        self.failures: list[str] = []


def write_runtime_units(directory: str, entries: Sequence[Entry], extra: dict[str, str]) -> Written:
    """Have ``directory`` hold the units and links of ``entries`` and none of earlier ones.

    ``extra`` are further files below it by their relative path; one with an empty text is removed.
    """
    written = Written()
    try:
        make_private_directories(directory)
        units = set(find_units(directory))
        links = set(find_links(directory))
    except OSError as error:
        written.failures.append(f"{directory}: {error.strerror}")
        return written
    wanted = {name: text for entry in entries for name, text in entry.units().items()}
    wanted_links = set(plan_targets(entries))
    texts = {**dict.fromkeys(units - wanted.keys(), ""), **wanted, **extra}
    # Links first and last: systemd never sees one that leads nowhere.
    for link in links - wanted_links:
        _apply(written, link[0], _remove_link, directory, link[0])
    for name, text in texts.items():
        _apply(written, name, _replace, f"{directory}/{name}", text)
    for path, target in wanted_links - links:
        _apply(written, path, _make_link, f"{directory}/{path}", target)
    return written


def plan_targets(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield each link, by its path below the directory, and what it leads to. Pure."""
    for entry in entries:
        unit = f"container@{entry.name}.service"
        for link in entry.links if entry.text else ():
            yield link, f"../{unit}" if "/" in link else unit


def plan_wishes(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield each unit that wants a container (``default.target``), and the container's unit. Pure."""
    for link, target in plan_targets(entries):
        directory, slash, _ = link.rpartition("/")
        for ending in _DEPENDENCIES:
            if slash and directory.endswith(ending):
                yield directory.removesuffix(ending), target.removeprefix("../")


def find_units(directory: str) -> Iterator[str]:
    """Yield the names of the units that were made from definitions."""
    for name in os.listdir(directory):
        is_unit = name.startswith("container@") and name.endswith(".service")
        is_timer = name.startswith("container-health@") and name.endswith(".timer")
        if (is_unit or is_timer) and _is_ours(f"{directory}/{name}"):
            yield name


def _is_ours(path: str) -> bool:
    if os.path.islink(path):
        return False  # masked, or linked to a file elsewhere
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readline(len(MARKER)) == MARKER
    except OSError:
        return False


def find_links(directory: str) -> Iterator[tuple[str, str]]:
    """Yield our links and what they lead to."""
    for name in os.listdir(directory):
        if name.endswith(_DEPENDENCIES) and os.path.isdir(f"{directory}/{name}"):
            for inner in os.listdir(f"{directory}/{name}"):
                target = _read_link(f"{directory}/{name}/{inner}")
                if target.startswith("../container@"):
                    yield f"{name}/{inner}", target
        elif (target := _read_link(f"{directory}/{name}")).startswith("container@") and "/" not in target:
            yield name, target


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _apply(written: Written, name: str, act: Callable[[str, str], bool], first: str, second: str) -> None:
    try:
        written.changed |= act(first, second)
    except OSError as error:
        written.failures.append(f"{name}: cannot be written: {error.strerror}")
    except UsercontainerError as error:
        written.failures.append(str(error))


def _replace(path: str, text: str) -> bool:
    """Have the file hold ``text``, or be gone if that is empty. Return whether it was otherwise."""
    before = _read(path)
    if before == text or (before is None and not text):
        return False
    if before is not None and path.endswith((".service", ".timer")) and not _is_ours(path):
        return False  # somebody's own unit of that name, or a mask
    if text:
        make_private_directories(os.path.dirname(path))
        write_atomic(path, text.encode(errors="surrogateescape"), mode=0o644, sync=False)
    else:
        os.unlink(path)
    return True


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _make_link(path: str, target: str) -> bool:
    make_private_directories(os.path.dirname(path))
    try:
        os.symlink(target, path)
    except FileExistsError:
        return False
    return True


def _remove_link(directory: str, link: str) -> bool:
    path = f"{directory}/{link}"
    os.unlink(path)
    parent = os.path.dirname(path)
    if parent != directory and not os.listdir(parent):
        os.rmdir(parent)
    return True
