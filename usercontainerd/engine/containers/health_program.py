"""The program ``check-health NAME``: runs a container's health check once, and keeps what it finds.

Two processes beside the check: one is what ``usercontainer exec`` is, with a pipe for its output; the other reads that,
at most so much, and ends the check when its time is over::

    this process                        a child, as `exec`
    fork ------------------------------>
                                        crun and the check, in the cgroup ``health`` of the unit
    read what it writes, until it ends
    or the time is over: kill the cgroup
    keep the outcome; ask systemd for the action

Whatever a check has started is killed with its cgroup: a check is over when it is over. The cgroup lies in that of the
container's unit, so that the unit's limits hold. That a check failed is no failure of the unit that ran it.
What this imports is fixed by a test.
"""

from __future__ import annotations

import os
import select
import time

from usercontainerd.base.errors import SystemdError, UsercontainerError, printable
from usercontainerd.base.names import is_container_name, unit_name
from usercontainerd.base.paths import Paths
from usercontainerd.engine.containers.execution import ExecRequest, run_in_container
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.cgroups import find_cgroup_mount, is_frozen, kill_until_empty
from usercontainerd.runtime.health import (
    HEALTHY,
    KILLED,
    MAX_OUTPUT,
    UNHEALTHY,
    Outcome,
    add_outcome,
    health_directory,
    health_file,
    identify_run,
    read_check,
    read_state,
    render_state,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.containers.lookup import Init
    from usercontainerd.runtime.health import Check, HealthState

GROUP = "health"
_END_PATIENCE = 5.0  # seconds for killed processes to be gone
_CHUNK = 4096
_SIGKILL = 9
_NOTICE, _WARNING = 5, 4  # of syslog(3), for journald


def main(arguments: list[str], environment: dict[str, str]) -> int:
    """Check once; 0 whatever is found, and if the container does not run."""
    if len(arguments) != 1 or not is_container_name(arguments[0]):
        os.write(2, b"usage: check-health NAME (it is the ExecStart= of container-health@NAME.service)\n")
        return 125
    paths = Paths.from_environment(environment, os.getuid())
    try:
        check_health(paths, arguments[0], environment.get("DBUS_SESSION_BUS_ADDRESS"))
    except UsercontainerError as error:
        _write_line(_WARNING, str(error))
        return error.exit_status
    return 0


def check_health(paths: Paths, name: str, bus_address: str | None = None) -> HealthState | None:
    """Run the check, keep its outcome and do what is to be done; None if there was nothing to check.

    Raises ``StoreError``, ``SystemdError``.
    """
    bundle = paths.bundle(name)
    check, run = read_check(bundle), identify_run(bundle)
    init = find_init(paths, name)
    if check is None or init is None or is_frozen(f"{find_cgroup_mount()}{init.cgroup}"):
        return None
    outcome = run_check(paths, name, check, init)
    if identify_run(bundle) != run or (ended := find_init(paths, name)) is None:
        return None  # the container has ended meanwhile: that says nothing of the next run
    os.close(ended.fd)
    before = read_state(paths, name)
    after = add_outcome(before, outcome, check, run / 1e9)
    os.makedirs(health_directory(paths), mode=0o700, exist_ok=True)
    write_atomic(health_file(paths, name), render_state(after).encode("utf-8", "surrogateescape"), sync=False)
    _report(name, before, after, outcome)
    if after.state == UNHEALTHY and outcome.status != 0:
        act(paths, name, check.action, bus_address)
    return after


def run_check(paths: Paths, name: str, check: Check, init: Init) -> Outcome:
    """Run the command; whatever it started is gone on return."""
    group = f"{find_cgroup_mount()}{init.cgroup.removesuffix(init.subgroup)}/{GROUP}"
    os.makedirs(group, exist_ok=True)
    start = time.time()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _become_exec(paths, name, check, reader, writer)
    os.close(writer)
    pidfd = os.pidfd_open(child)
    output, in_time = _read_output(reader, pidfd, check.timeout)
    # Before the child is waited for: it waits for the command.
    kill_until_empty((group,), _END_PATIENCE)
    if not in_time:
        os.kill(child, _SIGKILL)
    _, code = os.waitpid(child, 0)
    os.close(pidfd)
    os.close(reader)
    try:
        os.rmdir(group)
    except OSError:
        pass  # something in it is still dying: the next check uses it
    if in_time:
        return Outcome(start, time.time(), os.waitstatus_to_exitcode(code), output)
    more = f"{output.rstrip()}\n" if output.strip() else ""
    text = f"{more}Health check exceeded timeout ({check.timeout:g}s)"
    return Outcome(start, time.time(), KILLED, text[-MAX_OUTPUT:])


def _become_exec(paths: Paths, name: str, check: Check, reader: int, writer: int) -> None:
    """The child's half: it must never return into the parent's code."""
    status = 125
    try:
        os.close(reader)
        for fd in (1, 2):
            os.dup2(writer, fd)
        os.close(writer)
        status = run_in_container(paths, name, ExecRequest(check.command), _attach, group=GROUP)
    except (UsercontainerError, OSError) as error:
        os.write(2, f"{error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _attach(unit: str, subgroup: str, pid: int) -> None:
    raise SystemdError(f"process {pid} cannot be moved to {subgroup}", where=unit)


def _read_output(reader: int, pidfd: int, timeout: float) -> tuple[str, bool]:
    """Return the begin of what is written until the child has ended, and whether it has in time."""
    deadline = time.monotonic() + timeout
    os.set_blocking(reader, False)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    kept = b""
    while True:
        left = deadline - time.monotonic()
        ready = {fd for fd, _ in poll.poll(max(left, 0) * 1000 + 1)} if left > 0 else set()
        if reader in ready or pidfd in ready:
            data = _read_some(reader)
            kept += data[: 4 * MAX_OUTPUT - len(kept)]
            if not data and reader in ready:
                poll.unregister(reader)
        if pidfd in ready:
            return _clean(kept), True
        if left <= 0:
            return _clean(kept), False


def _read_some(reader: int) -> bytes:
    try:
        return os.read(reader, _CHUNK)
    except BlockingIOError:
        return b""


def _clean(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\0", "")[:MAX_OUTPUT]


def act(paths: Paths, name: str, action: str, bus_address: str | None) -> None:
    """Have systemd do what is to be done with an unhealthy container; nobody waits. Raises ``SystemdError``."""
    methods = {"restart": "RestartUnit", "stop": "StopUnit", "kill": "KillUnit"}
    if action not in methods:
        return
    from usercontainerd.systemd.manager import Manager

    unit = unit_name(name)
    with Manager.connect(paths.runtime_root, bus_address) as manager:
        if action == "kill":
            manager.call("KillUnit", "ssi", unit, "main", _SIGKILL)
        else:
            manager.queue_job(methods[action], unit)


def _report(name: str, before: HealthState, after: HealthState, outcome: Outcome) -> None:
    """One line when health has changed, and none for each check."""
    if after.state == before.state:
        return
    if after.state == HEALTHY:
        _write_line(_NOTICE, f"container {name} is healthy")
    elif after.state == UNHEALTHY:
        said = printable(" ".join(outcome.output.split()))[:200]
        _write_line(
            _WARNING,
            f"container {name} is unhealthy: exit status {outcome.status}{f': {said}' if said else ''}",
        )


def _write_line(priority: int, text: str) -> None:
    os.write(2, f"<{priority}>{text}\n".encode("utf-8", "replace"))
