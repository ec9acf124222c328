"""Containers that were to be removed when they had ended, and were not: machine, systemd or clean-up were killed.

Such a container has data with a mark, and either no definition any more (it lay in the runtime directory) or traces of
a run, while nothing of its unit runs.
"""

from __future__ import annotations

import os

from usercontainerd.engine.containers.lookup import has_definition
from usercontainerd.engine.images.local import empty_trash
from usercontainerd.runtime.removal import is_marked, remove_everything
from usercontainerd.runtime.summary import exit_file
from usercontainerd.systemd.manager import Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.base.paths import Paths
    from usercontainerd.engine.context import Context


def sweep_removed(context: Context) -> None:
    """Remove them; who is being made or started just now is left alone."""
    paths = context.paths
    names = list(find_candidates(paths))
    if not names:
        return
    from usercontainerd.engine.containers.lifecycle import is_idle

    bus_address = dict(context.environment).get("DBUS_SESSION_BUS_ADDRESS")
    whole = True
    with Manager.connect(paths.runtime_root, bus_address) as manager:
        for name in names:
            if is_idle(manager, name) and is_candidate(paths, name):
                whole = remove_everything(paths, name) is None and whole
    if not whole:
        empty_trash(context)


def find_candidates(paths: Paths) -> Iterator[str]:
    """Yield the names of those that are left, as far as the disk tells."""
    directory = os.path.dirname(paths.container_data("x"))
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if is_candidate(paths, name):
            yield name


def is_candidate(paths: Paths, name: str) -> bool:
    """Tell whether the container has been to run, or has lost its definition, and was to be removed."""
    data = paths.container_data(name)
    if not is_marked(data):
        return False
    traces = (f"{paths.bundle(name)}/pid", exit_file(data))
    return not has_definition(paths, name) or any(map(os.path.lexists, traces))
