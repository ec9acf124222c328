"""Running a further command in a running container.

Two processes take part. The child becomes crun, and through it the command, with the caller's own stdio (its
pipes only: see ``usercontainerd.engine.containers.relay``); the parent waits, to pass on signals and to tell crun's
failures from the command's own exit status::

    parent                                      child
    find init, describe the process
    fork ------------------------------------->
    move the child into the container's cgroup
                            ----- "g" --------> join init's user namespace
                                                become `crun exec`
    wait, pass on signals

The limits of the unit hold for the command because it is in the unit's cgroup; without that it is not run.
What this imports is fixed by a test.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import Paused, RuntimeFailure, SystemdError
from usercontainerd.base.names import runtime_id, unit_name
from usercontainerd.engine.containers.lookup import get_init
from usercontainerd.kernel.cgroups import find_cgroup_mount, is_frozen, write_file
from usercontainerd.kernel.signals import SIGCHLD, block_signals, is_ignored, restore_mask, wait_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from usercontainerd.base.paths import Paths
    from usercontainerd.engine.containers.lookup import Init
    from usercontainerd.engine.containers.relay import Relay

    Attach = Callable[[str, str, int], None]

CRUN_PATHS = ("/usr/bin/crun", "/usr/local/bin/crun")
CLONE_NEWUSER = 0x10000000
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# What a caller may send on: HUP INT QUIT USR1 USR2 TERM WINCH.
PASSED_SIGNALS = (1, 2, 3, 10, 12, 15, 28)
_SIGKILL = 9
_TERMINAL_POLL = 5.0  # seconds between two looks whether the terminal is still there
_MAX_LOG = 4096


class ExecRequest:
    """``environment`` holds what to set beyond the container's own; ``user`` is ``USER[:GROUP]`` by name or number."""

    __slots__ = ("command", "detach", "directory", "environment", "interactive", "terminal", "user")

    def __init__(
        self,
        command: tuple[str, ...],
        *,
        interactive: bool = False,
        terminal: bool = False,
        detach: bool = False,
        environment: tuple[tuple[str, str], ...] = (),
        user: str | None = None,
        directory: str | None = None,
    ) -> None:
        self.command = command
        self.interactive = interactive
        self.terminal = terminal
        self.detach = detach
        self.environment = environment
        self.user = user
        self.directory = directory

    @property
    def is_plain(self) -> bool:
        """True if only the command differs from what init has."""
        return not (self.terminal or self.environment or self.user is not None or self.directory is not None)


def run_in_container(
    paths: Paths, name: str, request: ExecRequest, attach: Attach, *, group: str | None = None
) -> int:
    """Run a command in container ``name`` with the caller's stdio and return its exit status.

    125, 126 and 127 may be crun's: see ``explain_crun_failure``. ``attach(unit, subgroup, pid)`` asks systemd to move
    a process where we may not. ``group`` is a cgroup of the unit, beside the container's, for the command.
    Raises ``NotRunning``, ``Paused``, ``RuntimeFailure``, ``SystemdError``.
    """
    init = get_init(paths, name)
    if is_frozen(f"{find_cgroup_mount()}{init.cgroup}"):
        raise Paused("the container is paused", where=name, hint=f"usercontainer unpause {name}")
    process = _make_memory_file(
        describe_process(paths, name, init, request).encode("utf-8", "surrogateescape")
    )
    log = _make_memory_file(b"")
    command = [
        _find_crun(),
        "--root",
        paths.crun_root,
        "--cgroup-manager=disabled",
        f"--log=file:/proc/self/fd/{log}",
        "exec",
        f"--process=/proc/self/fd/{process}",
        *(("--detach",) if request.detach else ()),
        runtime_id(name),
    ]
    watched = (SIGCHLD, *(number for number in PASSED_SIGNALS if not is_ignored(number)))
    mask = block_signals(watched)
    relay = _make_relay(request)
    reader, writer = os.pipe()  # not the relay's: the child notices when we are gone
    child = os.fork()
    if child == 0:
        os.close(writer)
        _leave_on_error(lambda: _become_crun(init, command, request, relay, gate=reader, mask=mask))
    os.close(reader)
    if relay is not None:
        relay.leave()
    try:
        _move_child(name, init, child, attach, group)
        os.write(writer, b"g")
    finally:
        os.close(writer)  # without the "g" the child leaves
        status = _wait_passing_signals(child, watched, request.terminal)
        if relay is not None:
            relay.finish()
    return _read_outcome(name, log, status)


def _make_relay(request: ExecRequest) -> Relay | None:
    """What stands between the command and the caller's terminal or files, if one of its descriptors is that."""
    if request.terminal or request.detach:
        return None
    from usercontainerd.kernel.descriptors import find_unfit

    unfit = find_unfit((0, 1, 2) if request.interactive else (1, 2))
    if not unfit:
        return None
    from usercontainerd.engine.containers.relay import Relay

    return Relay(unfit)


def _find_crun() -> str:
    for path in CRUN_PATHS:
        if os.access(path, os.X_OK):
            return path
    raise RuntimeFailure("is not installed", where=CRUN_PATHS[0], hint="install the package crun")


def _make_memory_file(data: bytes) -> int:
    fd = os.memfd_create("usercontainer-exec", 0)  # inherited: crun opens it by its number
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def describe_process(paths: Paths, name: str, init: Init, request: ExecRequest) -> str:
    """The ``process`` of the runtime specification (config.md) for the command, as JSON.

    What ``prepare`` left is that of init without its arguments; where nothing else changes, they are only put before
    it, which saves importing ``json``.
    """
    path = f"{paths.bundle(name)}/process.json"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError as error:
        raise RuntimeFailure(
            f"cannot read how the container was started: {error.strerror}", where=path
        ) from error
    if not request.is_plain:
        import json

        from usercontainerd.engine.containers.exec_process import plan_process, read_accounts_of

        accounts = ("", "") if request.user is None else read_accounts_of(init)
        return json.dumps(plan_process(json.loads(text), request, accounts, name))
    from _json import encode_basestring_ascii

    arguments = ",".join(encode_basestring_ascii(word) for word in request.command)
    return f'{{"args":[{arguments}],"terminal":false,{text.strip()[1:]}'


def _move_child(name: str, init: Init, child: int, attach: Attach, group: str | None) -> None:
    """Put the child into init's cgroup: directly if we share a delegated tree, else systemd does it."""
    subgroup = init.subgroup if group is None else f"/{group}"
    place = init.cgroup.removesuffix(init.subgroup)
    try:
        write_file(f"{find_cgroup_mount()}{place}{subgroup}/cgroup.procs", str(child))
    except OSError:
        try:
            attach(unit_name(name), subgroup, child)
        except SystemdError as error:
            raise SystemdError(
                f"the command cannot be put into the container's cgroup, where its limits hold: {error.what}",
                where=name,
            ) from error


def _leave_on_error(action: Callable[[], None]) -> None:
    """End this process if ``action`` returns: a child must never go on in the parent's code."""
    try:
        action()
    except OSError as error:
        os.write(2, f"Error: {error.strerror}\n".encode())
    finally:
        os._exit(125)


def _become_crun(
    init: Init, command: list[str], request: ExecRequest, relay: Relay | None, *, gate: int, mask: set[int]
) -> None:
    """The child's half; see the module's picture."""
    # crun makes a keyring for a container's first process only: the others would have the caller's.
    from usercontainerd.kernel.keyring import leave_session_keyring

    leave_session_keyring()
    if os.read(gate, 1) != b"g":
        return  # the parent has said why
    _join_user_namespace(init.fd)
    null = os.open(os.devnull, os.O_RDWR)
    if request.detach:
        replaced: tuple[int, ...] = (0, 1, 2)
    elif request.interactive or request.terminal:  # crun talks to the terminal by descriptor 0
        replaced = ()
    else:
        replaced = (0,)
    for fd in replaced:
        os.dup2(null, fd)
    if relay is not None:
        relay.enter()
    restore_mask(mask)
    os.execve(command[0], command, {"PATH": PATH})


def _join_user_namespace(pidfd: int) -> None:
    if hasattr(os, "setns"):
        os.setns(pidfd, CLONE_NEWUSER)
    else:
        from usercontainerd.kernel.syscalls import setns

        setns(pidfd, CLONE_NEWUSER)


def _wait_passing_signals(child: int, watched: Collection[int], terminal: bool) -> int:
    """Wait for the child and return its exit status, 128 and the signal if one killed it.

    Signals that somebody sent to us go on to it; the terminal has sent its own to both. crun does not notice that its
    terminal is gone, and spins: then we end it, and the kernel tells the command's session (SIGHUP).
    """
    while True:
        number, was_sent = wait_signal(watched, _TERMINAL_POLL if terminal else None)
        if number == SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif terminal and not os.isatty(0):
            os.kill(child, _SIGKILL)
            terminal = False
        elif was_sent:
            os.kill(child, number)


def _read_outcome(name: str, log: int, status: int) -> int:
    """Return the command's exit status, or docker's where crun failed: then it has said why on standard error."""
    text = os.pread(log, _MAX_LOG, 0).decode("utf-8", "replace").strip() if status else ""
    if not text:
        return status
    from usercontainerd.runtime.failure import explain_crun_failure

    return explain_crun_failure(text, name).exit_status
