"""Use case: the root file system of a container as a tar archive, as it is seen from inside, without its mounts."""

from __future__ import annotations

import os
from contextlib import ExitStack

from usercontainerd.base.errors import InvalidDefinition
from usercontainerd.engine.archives.output import writing_file
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.engine.definitions import read_definition
from usercontainerd.engine.images.local import get_image, open_images, start_worker
from usercontainerd.runtime.remains import layer_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context

_PIECE = 1024 * 1024


def export_container(context: Context, name: str, *, path: str | None, stdout: int = 1) -> list[str]:
    """Write the archive to ``path``, or to the descriptor ``stdout``; return what had to be left out.

    Of a container that does not run, it is what is left of it: its image, and what it wrote if that is kept. A file
    is replaced when the new one is complete. Raises ``NoSuchImage``, ``InvalidDefinition``, ``InvalidArgument``…
    """
    with ExitStack() as stack:
        directories = find_root_layers(context, name, stack)
        write = stack.enter_context(writing_file(path, stdout=stdout))
        worker = stack.enter_context(start_worker(context))
        archive = stack.enter_context(worker.start_export(directories))
        while data := archive.read(_PIECE):
            write(data)
        return archive.warnings


def find_root_layers(context: Context, name: str, stack: ExitStack) -> list[str]:
    """The directories whose overlay is the container's root, the highest first; held for as long as ``stack`` lasts."""
    upper = f"{layer_directory(context.paths.container_data(name))}/upper"
    written = [upper] if os.path.isdir(upper) else []
    if find_init(context.paths, name) is not None:
        # What runs has mounted these, whatever the definition says by now.
        lower = f"{context.paths.bundle(name)}/lower"
        return [*written, *(os.readlink(f"{lower}/{link}") for link in sorted(os.listdir(lower), key=int))]
    definition = read_definition(context, name).definition
    if definition is None:
        raise InvalidDefinition(
            f"the definition of {name} is broken", hint="usercontainer verify shows what is wrong"
        )
    return [*written, *hold_layers(context, definition.image, stack)]


def hold_layers(context: Context, image: str, stack: ExitStack) -> list[str]:
    """The directories of an image's layers, the highest first; held for as long as ``stack`` lasts."""
    record = get_image(context, image)
    images = open_images(context)
    for diff_id in sorted(set(record.layers)):
        lock = images.layers.lock(diff_id, exclusive=False)
        lock.acquire()
        stack.callback(lock.release)
    return [*reversed(images.layer_directories(record))]
