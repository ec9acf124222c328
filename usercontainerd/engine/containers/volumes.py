"""What stands behind a container's mounts: directories of volumes, and bind sources that are to be made."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidDefinition
from usercontainerd.base.names import is_plain_name
from usercontainerd.definition.model import Mount, MountType
from usercontainerd.kernel.atomicfile import explain_write_error
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.runtime.remains import layer_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context

NO_COPY = "nocopy"


def make_mount_sources(context: Context, name: str, mounts: tuple[Mount, ...]) -> tuple[tuple[str, str], ...]:
    """Make what the mounts of container ``name`` need; return the (target, directory) pairs of its volumes.

    Raises ``InvalidDefinition`` for a bind source that does not exist, ``StoreError`` for what cannot be made.
    """
    volumes = []
    for mount in mounts:
        if mount.type is MountType.VOLUME:
            directory = volume_directory(context, name, mount)
            if mount.source:
                _make_volume(directory)
            volumes.append((mount.target, directory))
        elif mount.type is MountType.BIND and not os.path.lexists(mount.source):
            if not mount.create:
                raise InvalidDefinition(
                    f"the source of the mount on {mount.target} does not exist",
                    where=mount.source,
                    hint="create it, or set create = true in a mount table",
                )
            try:
                os.makedirs(mount.source, exist_ok=True)
            except OSError as error:
                raise explain_write_error(error, mount.source) from error
    return tuple(volumes)


def volume_directory(context: Context, name: str, mount: Mount) -> str:
    """A named volume is the user's; an anonymous one belongs to the container and goes with its writable layer."""
    if mount.source:
        return f"{context.paths.data}/volumes/{mount.source}/_data"
    import hashlib  # 4 ms, that only an anonymous volume needs

    key = hashlib.sha256(mount.target.encode()).hexdigest()[:16]
    return f"{layer_directory(context.paths.container_data(name))}/volumes/{key}"


def list_volume_names(context: Context) -> list[str]:
    """Return the names of the user's volumes, sorted."""
    try:
        return sorted(name for name in os.listdir(f"{context.paths.data}/volumes") if is_plain_name(name))
    except OSError:
        return []


def plan_filled_volumes(
    mounts: tuple[Mount, ...], volumes: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """The (directory, target) pairs of the volumes that take the image's content while they are empty."""
    directories = dict(volumes)
    return tuple(
        (directories[mount.target], mount.target)
        for mount in mounts
        if mount.type is MountType.VOLUME and (NO_COPY not in mount.options or not mount.source)
    )


def _make_volume(directory: str) -> None:
    try:
        make_private_directories(os.path.dirname(directory))
        os.mkdir(directory, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise explain_write_error(error, directory) from error
