"""Images as mounted directories: ``image mount``, ``unmount``, and the namespace in which that is possible.

A user may mount only in a user and mount namespace of one's own, so the mounts are seen by what runs in it alone
(``unshare`` runs a command in one) and go with its last process. The kernel's own list says what is mounted, and an
image that is mounted twice has a second mount upon the first. A file beside the mount says which layers must stay for
it, even if the image is removed meanwhile (see ``store.usage``).
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import HostError, StoreError
from usercontainerd.engine.images.local import get_image, open_images
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.trees import make_private_directories, remove_tree
from usercontainerd.store.usage import find_mounted_images, image_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.store.records import ImageRecord

_ALL_IDS = ["0", "0", "4294967295"]


class ImageMount:
    """An image that is mounted on ``path``, ``times`` over."""

    __slots__ = ("path", "record", "times")

    def __init__(self, record: ImageRecord, path: str, times: int) -> None:
        self.record = record
        self.path = path
        self.times = times


def enter_namespaces(context: Context) -> None:
    """Move this process, which has no threads, into a user and a mount namespace of its own, as root there."""
    from usercontainerd.kernel.idmap import read_id_map
    from usercontainerd.kernel.userns import enter_user_namespace

    if not is_inside():
        enter_user_namespace(read_id_map(context.uid, context.gid, context.user))


def is_inside() -> bool:
    """Tell whether this process is root of a user namespace that is not the host's."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.readline().split() != _ALL_IDS


def _check_inside() -> None:
    if not is_inside():
        raise HostError(
            "images can only be mounted inside a user namespace",
            hint="run it in `usercontainer unshare`, such as `usercontainer unshare usercontainer image mount …`",
        )


def mount_directory(context: Context) -> str:
    """Where images are mounted."""
    return image_mounts(context.paths.runtime)


def mount_image(context: Context, text: str) -> ImageMount:
    """Mount an image for reading. Raises ``HostError`` outside of a user namespace, ``NoSuchImage``, ``StoreError``."""
    _check_inside()
    from usercontainerd.kernel.syscalls import MS_BIND, mount

    record = get_image(context, text)
    target = f"{mount_directory(context)}/{record.id.hex}"
    times = _count_mounts().get(target, 0)
    try:
        make_private_directories(target)
        if times:
            mount(target, target, None, MS_BIND)
        else:
            images = open_images(context)
            # So that nobody moves a layer away before it is seen to be mounted.
            with images.layers.lock_use(exclusive=False):
                layers = images.layer_directories(record)[::-1]
                names = [os.path.basename(os.path.dirname(layer)) for layer in layers]
                write_atomic(f"{target}.layers", "\n".join(names).encode(), sync=False)
                _mount_layers(layers, target)
    except OSError as error:
        raise StoreError(f"the image cannot be mounted: {error.strerror}", where=target) from error
    return ImageMount(record, target, times + 1)


def _mount_layers(layers: Sequence[str], target: str) -> None:
    """Mount ``layers``, the highest first, on ``target``."""
    from usercontainerd.kernel.overlay import link_directories, open_directory
    from usercontainerd.kernel.syscalls import MS_NODEV, MS_NOSUID, MS_RDONLY, mount

    scratch = f"{target}.{os.getpid()}"
    make_private_directories(scratch)
    # overlayfs wants two directories at least. This one has to stay.
    empty = f"{os.path.dirname(target)}/empty"
    make_private_directories(empty)
    here = open_directory(".")
    directories: list[int] = []
    try:
        os.chdir(scratch)
        directories = [open_directory(path) for path in (*layers, empty)]
        lower = link_directories(directories)
        flags = MS_RDONLY | MS_NODEV | MS_NOSUID
        mount("overlay", target, "overlay", flags, f"userxattr,lowerdir={lower}")
    finally:
        os.fchdir(here)
        for fd in (here, *directories):
            os.close(fd)
        remove_tree(scratch)


def unmount_image(context: Context, text: str, *, force: bool = False) -> ImageMount | None:
    """Take back one mount of an image, with ``force`` all of them; None if it is not mounted.

    Raises ``HostError`` outside of a user namespace, ``NoSuchImage``.
    """
    _check_inside()
    record = get_image(context, text)
    target = f"{mount_directory(context)}/{record.id.hex}"
    times = _count_mounts().get(target, 0)
    if not times:
        return None
    return unmount(ImageMount(record, target, times), force=force)


def unmount(mounted: ImageMount, *, force: bool = False) -> ImageMount:
    """Take back one mount, with ``force`` all of that image."""
    from usercontainerd.kernel.syscalls import umount

    left = mounted.times
    try:
        for _ in range(left if force else 1):
            umount(mounted.path)
            left -= 1
    except OSError as error:
        raise HostError(f"cannot unmount: {error.strerror}", where=mounted.path) from error
    # The directory stays: without it, a mount upon it in another namespace would be gone.
    return ImageMount(mounted.record, mounted.path, left)


def list_mounts(context: Context) -> list[ImageMount]:
    """The images that are mounted in this namespace. Raises ``HostError`` outside of a user namespace."""
    _check_inside()
    directory = mount_directory(context)
    mounts = _count_mounts()
    found = []
    for record in open_images(context).all():
        target = f"{directory}/{record.id.hex}"
        if target in mounts:
            found.append(ImageMount(record, target, mounts[target]))
    return found


def find_mounted(context: Context) -> set[str]:
    """The images, by the digits of their IDs, that are mounted in any namespace of the user's."""
    return find_mounted_images(context.paths.runtime)


def _count_mounts() -> dict[str, int]:
    """How often something is mounted on each path (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb") as file:
        lines = file.read().splitlines()
    counts: dict[str, int] = {}
    for line in lines:
        path = os.fsdecode(line.split(b" ")[4])
        for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            path = path.replace(escape, character)
        counts[path] = counts.get(path, 0) + 1
    return counts
