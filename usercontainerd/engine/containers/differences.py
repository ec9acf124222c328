"""What a container has changed of its image's files: ``diff``. Volumes and other mounts are not part of it."""

from __future__ import annotations

import json
from contextlib import ExitStack

from usercontainerd.engine.containers.exporting import find_root_layers
from usercontainerd.engine.definitions import read_definition
from usercontainerd.engine.images.local import start_worker
from usercontainerd.runtime.remains import layer_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.engine.context import Context
    from usercontainerd.store.outputs import Change


def list_container_changes(context: Context, name: str) -> Iterator[Change]:
    """Yield what container ``name`` has otherwise than its image, parents first; it may run or not.

    Raises ``NoSuchContainer``, ``NoSuchImage``, ``InvalidDefinition``.
    """
    with ExitStack() as stack:
        layers = find_root_layers(context, name, stack)
        if layers[:1] != [f"{layer_directory(context.paths.container_data(name))}/upper"]:
            return  # it has written nothing
        worker = stack.enter_context(start_worker(context))
        mounted = list_mount_points(context, name)
        yield from stack.enter_context(worker.start_differences(layers, layers[1:], mounted))


def list_mount_points(context: Context, name: str) -> list[str]:
    """Where something is mounted in the container: by what was made for its start, or else by its definition."""
    try:
        with open(f"{context.paths.bundle(name)}/config.json", encoding="utf-8") as file:
            mounts = json.load(file)["mounts"]
    except (OSError, ValueError, KeyError):
        mounts = _plan_mounts(context, name)
    return [str(mount["destination"]) for mount in mounts]


def _plan_mounts(context: Context, name: str) -> list[dict[str, object]]:
    from usercontainerd.runtime.specification import HostFiles, build_mounts

    definition = read_definition(context, name).definition
    # Only the destinations count: sources are made up.
    sources = tuple((mount.target, "/") for mount in definition.mounts)
    files = HostFiles(bundle="/", init="/", notify_socket="/", volumes=sources)
    return build_mounts(definition, files, init_system=True, group_five=False)
