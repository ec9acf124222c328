"""What a further command in a container has other than its init: user, environment, directory, terminal."""

from __future__ import annotations

import os

from usercontainerd.runtime.capabilities import DEFAULT_CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.engine.containers.execution import ExecRequest
    from usercontainerd.engine.containers.lookup import Init
    from usercontainerd.runtime.identity import Identity

_MAX_FILE = 1 << 20
TERM = "xterm"  # what docker sets


def read_accounts_of(init: Init) -> tuple[str, str]:
    """Return passwd(5) and group(5) of a running container, empty where it has none.

    They are the container's to write: the kernel resolves the paths in the container's root, whatever symlinks say.
    """
    root = os.open(f"/proc/{init.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _read_file(root, "etc/passwd"), _read_file(root, "etc/group")
    finally:
        os.close(root)


def _read_file(root: int, path: str) -> str:
    from usercontainerd.kernel.syscalls import openat2  # ctypes: 5 ms that only another user costs

    try:
        fd = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        with open(fd, "rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:  # a directory, say
        return ""


def plan_process(
    process: dict[str, Any], request: ExecRequest, accounts: tuple[str, str], name: str
) -> dict[str, Any]:
    """Return the ``process`` of the runtime specification for the command. Pure.

    ``process`` is init's without its arguments, ``accounts`` are passwd and group, which matter only if the request
    names a user. Raises ``InvalidArgument`` for a user that the container does not have.
    """
    changed = {**process, "args": list(request.command), "terminal": request.terminal}
    variables = dict(variable.partition("=")[::2] for variable in process.get("env", ()))
    if request.user is not None:
        from usercontainerd.runtime.identity import resolve_identity

        identity = resolve_identity(request.user, *accounts, where=name)
        former = resolve_identity(str(process["user"]["uid"]), *accounts, where=name)
        # A HOME that is not the one of init's user was set on purpose.
        if variables.get("HOME", former.home) == former.home:
            variables["HOME"] = identity.home
        changed["user"] = _plan_user(process["user"], identity)
        changed["capabilities"] = plan_exec_capabilities(process.get("capabilities", {}), identity.uid)
    if request.terminal:
        variables["TERM"] = TERM
    variables.update(request.environment)
    changed["env"] = [f"{name}={value}" for name, value in variables.items()]
    if request.directory is not None:
        changed["cwd"] = request.directory
    return changed


def _plan_user(former: dict[str, Any], identity: Identity) -> dict[str, Any]:
    return {
        **former,
        "uid": identity.uid,
        "gid": identity.gid,
        "additionalGids": list(identity.groups),
    }


def plan_exec_capabilities(capabilities: dict[str, Any], uid: int) -> dict[str, list[str]]:
    """Root gets the container's bounding set; another user, as in podman, what was added to the default one."""
    bounding = list(capabilities.get("bounding", ()))
    kept = bounding if uid == 0 else [each for each in bounding if each not in DEFAULT_CAPABILITIES]
    passed_on = [] if uid == 0 else kept
    return {
        "bounding": bounding,
        "effective": kept,
        "permitted": kept,
        "inheritable": passed_on,
        "ambient": passed_on,
    }
