"""The native lane: boots a machine in namespaces of this kernel, and keeps it."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from machinelib import machines, syscalls
from machinelib.cgroup import require_hierarchy
from machinelib.guest import GuestPlan, run_guest
from machinelib.hosttools import MachineError
from machinelib.machines import Place, Record
from machinelib.session import Order, run_order
from machinelib.syscalls import MountFlag

BOOT_PATIENCE = 60.0
# Ends when the users' managers are up, and alice's has started all it wants to.
_SETTLE = {
    "root": ("systemctl", "start", "user@1000.service", "user@1001.service"),
    "alice": ("sh", "-c", "systemctl --user is-system-running --wait >/dev/null || true"),
}


@dataclass(frozen=True)
class Machine:
    """A running machine, seen from its keeper."""

    record: Record
    place: Place
    hierarchy: Path


@contextmanager
def keep_machine(name: str, layers: tuple[Path, ...], checkout: Path, on_disk: bool) -> Iterator[Machine]:
    """A booted machine for the time of the block; afterwards nothing of it is left."""
    place, record = machines.claim_place(name)
    try:
        yield _boot_machine(place, record, layers, checkout, on_disk)
    finally:
        machines.remove_place(place)
        # Our children are the machine's init, which takes all its processes along, and sessions.
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


def probe_support() -> str | None:
    """Why the native lane cannot run here, or None."""
    if os.geteuid() != 0:
        return "the native lane needs root"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        reason = b""
        try:
            _try_namespaces()
        except (OSError, MachineError) as error:
            reason = str(error).encode()
        os.write(writer, reason)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reason = pipe.read()
    os.waitpid(pid, 0)
    return f"namespaces are refused here: {reason.decode()}" if reason else None


def _try_namespaces() -> None:
    require_hierarchy()
    syscalls.unshare(
        syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWPID
        | syscalls.CLONE_NEWNET
        | syscalls.CLONE_NEWCGROUP
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWIPC
    )
    syscalls.mount("", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
    syscalls.mount("tmpfs", "/tmp", "tmpfs")
    os.mknod("/tmp/null", 0o020666, os.makedev(1, 3))
    with open("/tmp/null", "wb"):
        pass


def _boot_machine(
    place: Place, record: Record, layers: tuple[Path, ...], checkout: Path, on_disk: bool
) -> Machine:
    hierarchy = require_hierarchy()
    cgroup = hierarchy / record.cgroup
    cgroup.mkdir()
    mount_point = place.directory / "mount"
    mount_point.mkdir()
    scratch = place.directory / "scratch"
    scratch.mkdir()
    plan = GuestPlan(cgroup, layers, checkout, mount_point, scratch, on_disk, secrets.token_hex(16))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # From now on every child of this process is born into the machine's PID namespace; the first is its init.
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _silence_output(place.directory / "console.log")
        run_guest(plan, theirs)
    theirs.close()
    record = machines.with_init(record, pid)
    place.write_record(record)
    with ours:
        ours.send(b"g")
        with _receive_notify_socket(ours) as notify:
            _await_boot(notify, pid)
    for user, command in _SETTLE.items():
        if run_order(record, hierarchy, Order(command, user, BOOT_PATIENCE)) != 0:
            raise MachineError(
                f"the machine's user managers did not come up (as {user}: {' '.join(command)})"
            )
    record = replace(record, ready=True)
    place.write_record(record)
    return Machine(record, place, hierarchy)


def _silence_output(log: Path) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)


def _receive_notify_socket(channel: socket.socket) -> socket.socket:
    message, fds, _, _ = socket.recv_fds(channel, 65536, 1)
    if message[:1] != b"N":
        raise MachineError(f"the machine did not start: {message[1:].decode() or 'its init died'}")
    error = channel.recv(65536)  # nothing, if the exec succeeded
    notify = socket.socket(fileno=fds[0])
    if error:
        notify.close()
        raise MachineError(f"the machine did not start: {error[1:].decode()}")
    return notify


def _await_boot(notify: socket.socket, init: int) -> None:
    """Wait until systemd says that it is up."""
    awaited = {"READY=1"}
    deadline = time.monotonic() + BOOT_PATIENCE
    pidfd = os.pidfd_open(init)
    try:
        while awaited:
            sources = [notify.fileno(), pidfd]
            readable, _, _ = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))
            if notify.fileno() in readable:
                awaited -= set(notify.recv(65536).decode(errors="replace").split("\n"))
            elif pidfd in readable:
                raise MachineError("the machine's systemd died while it was booting")
            else:
                raise MachineError(f"the machine's systemd was not ready after {BOOT_PATIENCE:.0f} s")
    finally:
        os.close(pidfd)


def wait_machine(machine: Machine) -> None:
    """Return when the machine's init is gone."""
    with suppress(ChildProcessError):
        os.waitpid(machine.record.init, 0)


def stop_machine(record: Record, patience: float = 15.0) -> None:
    """Have a machine's keeper end it; and do so ourselves if the keeper does not."""
    started = machines.read_start_time(record.keeper)
    with suppress(ProcessLookupError):
        os.kill(record.keeper, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(found.keeper != record.keeper for found in machines.list_machines()):
            return
        time.sleep(0.02)
    machines.kill_process(record.keeper, started)
    time.sleep(0.1)
    machines.sweep_machines()
