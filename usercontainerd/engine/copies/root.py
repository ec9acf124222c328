"""The root of a container for a copy: what runs has one; of what does not, it is put together as a start would."""

from __future__ import annotations

import os

from usercontainerd.definition.model import MountType, WritableLayer
from usercontainerd.engine.containers.exporting import hold_layers
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.engine.containers.preparation import plan_user_namespace
from usercontainerd.engine.containers.volumes import make_mount_sources, plan_filled_volumes, volume_directory
from usercontainerd.engine.definitions import read_definition
from usercontainerd.kernel.atomicfile import FileLock
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.runtime.remains import layer_directory, layer_lock
from usercontainerd.runtime.removal import mark_for_removal
from usercontainerd.runtime.stoppedroot import StoppedRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack

    from usercontainerd.definition.model import Definition, Mount
    from usercontainerd.engine.context import Context
    from usercontainerd.runtime.stoppedroot import Binding


class Root:
    """``stopped`` is None of a container that runs. ``sealed`` says why nothing can be written to the root itself.

    ``sealed`` is empty where it can; ``hint`` says what to do about it.
    """

    __slots__ = ("hint", "sealed", "stopped")

    def __init__(self, stopped: StoppedRoot | None = None, sealed: str = "", hint: str = "") -> None:
        self.stopped = stopped
        self.sealed = sealed
        self.hint = hint


def find_root(context: Context, name: str, stack: ExitStack, *, writing: bool) -> Root:
    """Find or describe the root of container ``name``; it can be used for as long as ``stack`` lasts.

    While one that does not run is written to, it does not start: it waits. Raises ``NoSuchContainer``,
    ``NoSuchImage``, ``InvalidDefinition``, ``StoreError``.
    """
    data = context.paths.container_data(name)
    lock = FileLock(layer_lock(data))
    if writing:
        make_private_directories(data)
        lock.acquire()
        stack.callback(lock.release)
    init = find_init(context.paths, name)
    if init is not None:
        os.close(init.fd)
        lock.release()
        return Root()
    definition = read_definition(context, name).definition
    layers = hold_layers(context, definition.image, stack)
    # One that is removed when it has ended has its layer from the first start to the end, restarts included.
    keep = definition.writable_layer is WritableLayer.KEEP or definition.remove
    if writing and definition.remove:
        mark_for_removal(data)
    writable = layer_directory(data)
    if writing and keep:
        make_layer(writable)
    elif os.path.isdir(f"{writable}/upper"):
        layers.insert(0, f"{writable}/upper")
    place = f"{context.paths.runtime}/copy"
    make_private_directories(place)
    mounts = tuple(sorted(definition.mounts, key=lambda mount: mount.target.count("/")))
    filled: tuple[tuple[str, str], ...] = ()
    if writing:
        # A volume of the container's own goes with its layer.
        mounts = tuple(mount for mount in mounts if keep or not is_anonymous(mount))
        filled = plan_filled_volumes(mounts, make_mount_sources(context, name, mounts))
    stopped = StoppedRoot(
        id_map=plan_user_namespace(context, definition).render(),
        place=place,
        layers=layers,
        writable=writable if writing and keep else "",
        bindings=[*plan_bindings(context, name, mounts, writing=writing)],
        volumes=filled,
    )
    return Root(stopped, *(explain_seal(definition, keep=keep) if writing else ()))


def is_anonymous(mount: Mount) -> bool:
    """Tell whether this is a volume without a name."""
    return mount.type is MountType.VOLUME and not mount.source


def make_layer(layer: str) -> None:
    """Have a writable layer, as the launcher makes it."""
    for directory, mode in ((layer, 0o700), (f"{layer}/work", 0o700), (f"{layer}/upper", 0o755)):
        try:
            os.mkdir(directory, mode)
            os.chmod(directory, mode)
        except FileExistsError:
            pass


def plan_bindings(context: Context, name: str, mounts: tuple[Mount, ...], *, writing: bool) -> list[Binding]:
    """What is mounted in the root, as far as it is there; all of it if that will be made."""
    bindings = []
    for mount in mounts:
        if mount.type is MountType.TMPFS:
            bindings.append(("", mount.target, True))
            continue
        is_volume = mount.type is MountType.VOLUME
        source = volume_directory(context, name, mount) if is_volume else mount.source
        if os.path.exists(source) or (writing and is_volume):
            bindings.append((source, mount.target, mount.read_only))
    return bindings


def explain_seal(definition: Definition, *, keep: bool) -> tuple[str, str]:
    """Why what is written to the root of a stopped container would be of no use, and what to do; empty: it is."""
    if definition.security.read_only:
        return "the container's root is read-only", "copy into one of its volumes"
    if not keep:
        return (
            "the container begins anew at each start, so that what is copied into it now would be lost",
            'start it first, or set writable_layer = "keep"',
        )
    return "", ""
