"""Which layers containers and image mounts have in use: those must stay, whatever is removed.

Nothing counts users. A bundle links to the layers it was made from, and the kernel says whether its container
runs. A start holds the lock ``starting`` (shared with other starts) from before it mounts its layers until its
container's first process is known; whoever moves layers away holds it exclusively while looking and moving. So a
layer is either gone before a start mounts it, which then fails, or seen to be in use. ``image mount`` does the same:
the kernel says which images are mounted, a file beside each mount which layers that are.
"""

from __future__ import annotations

import os

from usercontainerd.base.names import is_container_name, unit_name
from usercontainerd.kernel.cgroups import read_cgroup

STARTING = "starting"  # the lock's name; the launcher takes it


def find_layers_in_use(runtime: str) -> dict[str, list[str]]:
    """Return the layers (hexadecimal, as their directories are called) that running containers have mounted.

    Each with the names of its containers; ``runtime`` is this program's part of ``$XDG_RUNTIME_DIR``.
    """
    used: dict[str, list[str]] = {}
    bundles = f"{runtime}/containers"
    for name in _list(bundles):
        if not is_container_name(name) or not _runs(f"{bundles}/{name}", name):
            continue
        for link in _list(f"{bundles}/{name}/lower"):
            try:
                target = os.readlink(f"{bundles}/{name}/lower/{link}")
            except OSError:
                continue
            used.setdefault(os.path.basename(os.path.dirname(target)), []).append(name)
    return used


def image_mounts(runtime: str) -> str:
    """Where images are mounted, each on a directory called as the digits of its ID."""
    return f"{runtime}/image-mounts"


def list_mounted_layers(runtime: str) -> set[str]:
    """Return the layers of images that are mounted in any namespace of the user's, whether they are still images."""
    found: set[str] = set()
    for image in find_mounted_images(runtime):
        try:
            with open(f"{image_mounts(runtime)}/{image}.layers", encoding="utf-8") as file:
                found.update(file.read().split())
        except (OSError, ValueError):
            continue
    return found


def find_mounted_images(runtime: str) -> set[str]:
    """The images, by the digits of their IDs, that are mounted in any namespace of the user's."""
    directory = image_mounts(runtime)
    # Nothing to look at where there was never a mount: the directory goes with the session.
    if not os.path.isdir(directory):
        return set()
    mark = os.fsencode(f"{directory}/")
    found: set[str] = set()
    seen: set[str] = set()
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace in seen:
                continue
            with open(f"/proc/{process}/mountinfo", "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            continue  # it has ended, or is another user's
        seen.add(namespace)
        paths = (line.split(b" ")[4] for line in lines if mark in line)
        found.update(os.fsdecode(path.removeprefix(mark)) for path in paths if path.startswith(mark))
    return found


def _runs(bundle: str, name: str) -> bool:
    try:
        with open(f"{bundle}/pid", encoding="utf-8") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return False
    cgroup = read_cgroup(pid)
    return cgroup is not None and f"/{unit_name(name)}/" in f"{cgroup}/"


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
