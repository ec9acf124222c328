"""Trying what a container's start does, in namespaces that are thrown away: only that says whether it works."""

from __future__ import annotations

import os

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.kernel.userns import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    enter_user_namespace,
    unshare_namespaces,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.kernel.idmap import IdMap

_MAX_MESSAGE = 4096


def try_namespaces(id_map: IdMap | None, directory: str) -> str | None:
    """Make a user namespace in a child process; with ``id_map`` map IDs and mount an overlay in ``directory``, too.

    Return what went wrong, None if nothing did. The caller has one thread only.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        message = "the trial ended early"
        try:
            os.close(reader)
            # What newuidmap has to say is in the error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            message = _try(id_map, directory)
        finally:
            os.write(writer, message.encode("utf-8", "replace"))
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read(_MAX_MESSAGE).decode("utf-8", "replace")
    os.waitpid(child, 0)
    return text or None


def _try(id_map: IdMap | None, directory: str) -> str:
    try:
        if id_map is None:
            unshare_namespaces(CLONE_NEWUSER | CLONE_NEWNS)
        else:
            enter_user_namespace(id_map, CLONE_NEWNS)
            _try_overlay(f"{directory}/.usercontainer-trial-{os.getpid()}")
    except UsercontainerError as error:
        return error.what if error.where is None else f"{error.where}: {error.what}"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _try_overlay(directory: str) -> None:
    from usercontainerd.kernel.syscalls import mount, umount
    from usercontainerd.kernel.trees import remove_tree

    os.mkdir(directory, 0o700)
    try:
        os.chdir(directory)
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(name)
        with open("lower/file", "w", encoding="ascii") as file:
            file.write("x")
        mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work,userxattr")
        try:
            os.unlink("merged/file")  # needs whiteouts
            os.mkdir("merged/directory")
        finally:
            os.chdir("/")
            umount(f"{directory}/merged")
    finally:
        remove_tree(directory)
