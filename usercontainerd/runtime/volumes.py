"""Filling a new named volume with what the image has in its place, as docker and Podman do.

Runs in the launcher's child, inside the user namespace, with the container's root mounted.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import StoreError
from usercontainerd.kernel.spawning import spawn, wait_exit
from usercontainerd.kernel.syscalls import openat2
from usercontainerd.kernel.trees import remove_tree

COPY = "/usr/bin/cp"
SELINUX = "/sys/fs/selinux/enforce"


def make_if_missing(directory: str) -> bool:
    """Have the directory, and tell whether nothing was ever put into it."""
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except OSError as error:
        raise StoreError(f"cannot make the volume: {error.strerror}", where=directory) from error


def plan_copy(source: str, target: str, *, selinux: bool) -> list[str]:
    """The command that copies a directory with all its attributes. Pure."""
    # Of these, the image's label is not for a volume: -Z gives what the policy has for the place.
    label = ["-Z"] if selinux else []
    return [COPY, "-a", *label, "--reflink=auto", "-T", "--", source, target]


def populate_volume(root: str, directory: str, target: str) -> None:
    """Copy what the image has at ``target`` to the empty volume ``directory``; nothing there: it stays empty.

    The copy is made beside the volume and renamed, so that one that is interrupted is begun again.
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            source = openat2(root_fd, target, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return
        try:
            staging = f"{directory}.new"
            remove_tree(staging)
            # Through our descriptor: the path is the image's, and is resolved only once.
            here = f"/proc/{os.getpid()}/fd/{source}"
            status = wait_exit(
                spawn(
                    plan_copy(f"{here}/.", staging, selinux=os.path.exists(SELINUX)),
                    {"PATH": "/usr/bin:/bin"},
                )
            )
            if status != 0:
                remove_tree(staging)
                raise StoreError(
                    "cannot copy the image's content into the new volume; cp's message is above",
                    where=directory,
                )
            os.rename(staging, directory)
        finally:
            os.close(source)
    finally:
        os.close(root_fd)
