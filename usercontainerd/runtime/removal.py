"""Putting away all of a container whose definition goes with it (``remove = true``): for ``cleanup``, and for a sweep.

The definition of such a container lies in the runtime directory: no reboot leaves it behind. What it writes lies in the
store, with a mark; whatever has the mark and no definition is anybody's to sweep up. So the definition goes first, and
the data, by one rename, last.
"""

from __future__ import annotations

import os

from usercontainerd.base.names import health_timer, unit_name
from usercontainerd.kernel.trees import make_private_directories, remove_file, remove_tree
from usercontainerd.runtime.health import health_file
from usercontainerd.runtime.remains import discard_runtime_state, trash_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths

MARK = "remove"  # in the container's data directory


def mark_for_removal(data: str) -> None:
    """Have what is in ``data`` swept up once there is no definition any more."""
    os.close(os.open(f"{data}/{MARK}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def is_marked(data: str) -> bool:
    """Tell whether a container's data goes with its definition."""
    return os.path.lexists(f"{data}/{MARK}")


def remove_definition(paths: Paths, name: str) -> None:
    """Remove definition and unit; systemd need not be told of a unit that has ended."""
    unit = unit_name(name)
    for path in (
        f"{paths.passing_definitions}/{name}.toml",
        f"{paths.runtime_units}/{unit}",
        f"{paths.runtime_root}/systemd/generator/{unit}",
        f"{paths.runtime_units}/{health_timer(name)}",
        f"{paths.runtime_root}/systemd/generator/{health_timer(name)}",
        health_file(paths, name),
    ):
        remove_file(path)


def remove_everything(paths: Paths, name: str) -> str | None:
    """Remove a container that has ended; return where what it wrote now lies in the trash, None if there was nothing.

    That may hold files of subordinate IDs: to be deleted inside the user namespace.
    """
    remove_definition(paths, name)
    discard_runtime_state(paths, name)
    remove_file(f"{paths.runtime}/summaries/{name}")
    remove_tree(paths.bundle(name))
    trash = trash_directory(paths)
    target = f"{trash}/container-{os.getpid()}-{os.urandom(6).hex()}"
    make_private_directories(trash)
    try:
        os.rename(paths.container_data(name), target)
    except FileNotFoundError:
        return None
    return None if remove_tree(target) else target
