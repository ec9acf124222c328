"""The root of a container that does not run, mounted as it would see it, in namespaces of our own.

For a process that was exec'd for this: on return its root directory is the container's. Layers, volumes and what is
bound are opened before, and named by their descriptors: no path of theirs gets into mount options.
"""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import HostError
from usercontainerd.kernel.idmap import parse_id_map
from usercontainerd.kernel.overlay import link_directories
from usercontainerd.kernel.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    openat2,
)
from usercontainerd.kernel.userns import enter_user_namespace
from usercontainerd.runtime.volumes import make_if_missing, populate_volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Binding = tuple[str, str, bool]

_OPEN = os.O_PATH | os.O_CLOEXEC
_RELATIME = 1 << 12, 1 << 21  # statvfs(3) has another bit for it than mount(2)
_KEPT_FLAGS = 0x2 | 0x4 | 0x8 | 1 << 10 | 1 << 11  # nosuid, nodev, noexec, noatime, nodiratime: the same


class StoppedRoot:
    """What it consists of.

    ``layers`` are directories, the highest first. ``writable`` is the one that holds ``upper`` and ``work``, empty if
    what is written to the root itself is not kept. ``bindings`` are (source, target, read only), outer ones first; an
    empty source stands for a tmpfs, which is empty while nothing runs. ``volumes`` are the (directory, target) pairs
    of those that take the image's content while they are empty. ``place`` is a directory to mount over.
    """

    __slots__ = ("bindings", "id_map", "layers", "place", "volumes", "writable")

    def __init__(
        self,
        *,
        id_map: str,
        place: str,
        layers: Sequence[str],
        writable: str = "",
        bindings: Sequence[Binding] = (),
        volumes: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.id_map = id_map
        self.place = place
        self.layers = tuple(layers)
        self.writable = writable
        self.bindings = tuple(bindings)
        self.volumes = tuple(volumes)

    def as_dict(self) -> dict[str, Any]:
        """As the constructor takes it again, for a request."""
        return {name: getattr(self, name) for name in self.__slots__}


def enter_stopped_root(root: StoppedRoot) -> None:
    """Make it the root directory of this process. Raises ``HostError``, ``StoreError``."""
    enter_user_namespace(parse_id_map(root.id_map))
    layers = [_open(path) for path in root.layers]
    upper = [_open(f"{root.writable}/{name}") for name in ("upper", "work")] if root.writable else []
    mount("tmpfs", root.place, "tmpfs")
    os.chdir(root.place)
    for name in ("root", "upper", "work", "empty"):
        os.mkdir(name, 0o755)
    lower = link_directories(layers) or "empty"
    kept, work = map(_name, upper) if upper else ("upper", "work")
    mount("overlay", "root", "overlay", 0, f"lowerdir={lower},upperdir={kept},workdir={work},userxattr")
    for directory, target in root.volumes:
        if make_if_missing(directory):
            populate_volume("root", directory, target)
    sources = [_open(source) if source else -1 for source, _, _ in root.bindings]
    top = os.open("root", _OPEN | os.O_DIRECTORY)
    for fd, (_, target, read_only) in zip(sources, root.bindings, strict=True):
        _bind(top, fd, target, read_only=read_only)
    for fd in (*layers, *upper, *sources):
        if fd >= 0:
            os.close(fd)
    os.fchdir(top)
    os.chroot(".")
    os.close(top)


def _open(path: str) -> int:
    try:
        return os.open(path, _OPEN)
    except OSError as error:
        raise HostError(f"cannot open: {error.strerror}", where=path) from error


def _name(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _bind(top: int, source: int, target: str, *, read_only: bool) -> None:
    is_directory = source < 0 or stat.S_ISDIR(os.fstat(source).st_mode)
    place = _open_target(top, target, is_directory=is_directory)
    try:
        if source < 0:
            mount("tmpfs", _name(place), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV)
            return
        mount(_name(source), _name(place), None, MS_BIND | MS_REC)
    finally:
        os.close(place)
    if read_only:
        # What a file system outside of our namespaces is mounted with cannot be taken from it.
        given = os.fstatvfs(source).f_flag
        flags = given & _KEPT_FLAGS | (_RELATIME[1] if given & _RELATIME[0] else 0)
        mounted = openat2(top, target, _OPEN)
        try:
            mount("", _name(mounted), None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
        finally:
            os.close(mounted)


def _open_target(top: int, target: str, *, is_directory: bool) -> int:
    """Open the mount point, made if it is missing, as crun does; symlinks lead nowhere else."""
    try:
        return openat2(top, target, _OPEN)
    except FileNotFoundError:
        pass
    parts = [part for part in target.split("/") if part]
    for index, name in enumerate(parts):
        here = "/" + "/".join(parts[:index])
        parent = openat2(top, here, _OPEN | os.O_DIRECTORY)
        try:
            if is_directory or index + 1 < len(parts):
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=parent))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        finally:
            os.close(parent)
    return openat2(top, target, _OPEN)
