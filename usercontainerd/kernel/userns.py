"""Entering a user namespace of one's own.

Only for a single-threaded process that was exec'd for the purpose: a second thread makes
``unshare(CLONE_NEWUSER)`` fail with EINVAL.
"""

from __future__ import annotations

import errno
import posix as os

from usercontainerd.base.errors import HostError, UsercontainerError
from usercontainerd.kernel.idmap import IdMap, finish_map_writers, start_map_writers

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def unshare_namespaces(flags: int) -> None:
    """unshare(2) without ctypes where Python has it (3.12); a refusal says how to allow user namespaces."""
    try:
        if hasattr(os, "unshare"):
            os.unshare(flags)
        else:
            from usercontainerd.kernel.syscalls import unshare

            unshare(flags)
    except OSError as error:
        raise _explain_refusal(error) from error


def _explain_refusal(error: OSError) -> HostError:
    hints = {
        errno.ENOSPC: "raise the limit: sysctl user.max_user_namespaces=28633",
        errno.EPERM: "unprivileged user namespaces are switched off here (sysctl kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns, or an outer container's seccomp filter)",
        errno.EINVAL: "the process has more than one thread, or the kernel lacks CONFIG_USER_NS",
    }
    return HostError(
        f"cannot make a user namespace: {error.strerror}",
        hint=hints.get(error.errno or 0, "see `usercontainer doctor`"),
    )


def enter_user_namespace(id_map: IdMap, flags: int = CLONE_NEWNS) -> None:
    """Move this process into a new user namespace (and those of ``flags``) with ``id_map`` in force.

    The maps are written by a child that stays outside. On return the process is root in the namespace
    (all IDs 0, no supplementary groups where the map allows dropping them).
    """
    ready_read, ready_write = os.pipe()
    target = os.getpid()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(ready_write)
            if os.read(ready_read, 1) == b"1":
                finish_map_writers(start_map_writers(target, id_map))
                status = 0
        except UsercontainerError as error:
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(status)
    os.close(ready_read)
    try:
        unshare_namespaces(CLONE_NEWUSER | flags)
        os.write(ready_write, b"1")
    finally:
        os.close(ready_write)
        status = os.waitpid(helper, 0)[1]
    if status != 0:
        raise HostError(
            "the ID map of the user namespace could not be written", hint="see `usercontainer doctor`"
        )
    become_namespace_root(id_map)


def become_namespace_root(id_map: IdMap) -> None:
    """Take the IDs 0 of the namespace; drop the host's supplementary groups where setgroups(2) is allowed."""
    os.setresgid(0, 0, 0)
    if not id_map.single:
        os.setgroups([])
    os.setresuid(0, 0, 0)
