"""The kernel lane: boots the machine under user-mode Linux, which is one process of ours and needs no privilege.

What a run needs is in its work directory, which the machine sees over hostfs: a script for its first process, the
job, and the files that the answer comes back in. The disk image stays as it is: what is written goes to a
copy-on-write file.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from machinelib import machines, syscalls
from machinelib.cache import say
from machinelib.diskimage import ENTRY
from machinelib.hosttools import MachineError
from machinelib.machines import Place, Record
from machinelib.session import TIMED_OUT, Order
from machinelib.uml import Kernel

BOOT_PATIENCE = 120.0
_POLL_INTERVAL = 0.05
_MODULES = "overlay fuse tun veth bridge dummy macvlan nf_tables autofs4 loop unix_diag"

# Hardware set-up, which costs seconds here; the first one would take the modes of device nodes back.
_MASKED = (
    "kmod-static-nodes.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount"
    " modprobe@.service modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service"
    " modprobe@fuse.service systemd-modules-load.service systemd-random-seed.service"
    " systemd-hibernate-clear.service systemd-tmpfiles-setup-dev-early.service"
    " systemd-tmpfiles-setup-dev.service"
)

# Sourced by the image's own script as the machine's first process, before systemd. Debian delegates no io to users'
# managers, which the machine for trying limits needs.
_ENTRY = """\
mount_host() {{
    mkdir -p "$2"
    mount -t hostfs -o "hostfs=$1" none "$2" || mount -t hostfs -o "$1" none "$2"
}}
mount_host {modules} /usr/lib/modules
mount_host {checkout} /checkout
mount -o remount,bind,ro /checkout
number=0
for layer in {layers}; do
    number=$((number + 1))
    mount_host "$layer" /run/machine-layer
    cp -R --preserve=mode,timestamps,links /run/machine-layer/. /
    (cd /run/machine-layer && find . -mindepth 1) | sed 's,^[.],,' >> /run/machine-copied
    umount /run/machine-layer
done
contexts=/etc/selinux/default/contexts/files/file_contexts
[ ! -e $contexts ] || setfiles -F -s $contexts < /run/machine-copied
modprobe -q -a {names}
chmod 0666 /dev/fuse /dev/net/tun
echo {machine_id} > /etc/machine-id
mkdir -p /run/systemd/system/multi-user.target.wants
cd /run/systemd/system
mkdir user@.service.d
printf '[Service]\\nDelegate=cpu io memory pids\\n' > user@.service.d/delegate.conf
cp /run/machine/machine-agent.service .
ln -s ../machine-agent.service multi-user.target.wants/
for unit in {masked}; do
    ln -s /dev/null "$unit"
done
cd /
exec /usr/lib/systemd/systemd
"""

# However the agent ends, the machine ends with it.
_AGENT_UNIT = """\
[Unit]
Description=Runs what this machine was booted for
After=user@1000.service user@1001.service machine-registry.service
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
# What a login has, where SELinux is on.
SELinuxContext=-unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023
Environment=PYTHONPATH=/checkout/tools PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
ExecStart=/usr/bin/python3 -m machinelib.agent /run/machine
StandardOutput=journal+console
StandardError=journal+console
"""


@dataclass(frozen=True)
class KernelPlan:
    """What a machine of this lane is made of."""

    kernel: Kernel
    image: Path
    layers: tuple[Path, ...]  # copied over the root file system, the first one first
    checkout: Path
    memory: str


def run_kernel_order(name: str, plan: KernelPlan, order: Order) -> int:
    """Boot a machine for one command; the command's exit status."""
    place, record = machines.claim_place(name, "kernel")
    process: subprocess.Popen[bytes] | None = None
    try:
        _prepare_work(place.directory, plan, order)
        process = _start_kernel(place, record, plan)
        return _follow_run(place.directory, process, order)
    finally:
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        machines.remove_place(place)


def _prepare_work(work: Path, plan: KernelPlan, order: Order) -> None:
    if any(character in str(path) for path in (work, plan.checkout) for character in " ,'\""):
        raise MachineError(f"the kernel lane cannot use paths with spaces, commas or quotes: {work}")
    job = {
        "arguments": order.arguments,
        "user": order.user,
        "environment": {"TERM": os.environ.get("TERM", "dumb")},
    }
    (work / "job.json").write_text(json.dumps(job))
    script = _ENTRY.format(
        modules=shlex.quote(str(plan.kernel.modules)),
        checkout=shlex.quote(str(plan.checkout)),
        layers=" ".join(shlex.quote(str(layer)) for layer in plan.layers),
        names=_MODULES,
        masked=_MASKED,
        machine_id=secrets.token_hex(16),
    )
    (work / "entry").write_text(script)
    (work / "machine-agent.service").write_text(_AGENT_UNIT)
    for name in ("stdout", "stderr"):
        (work / name).touch()


def _start_kernel(place: Place, record: Record, plan: KernelPlan) -> subprocess.Popen[bytes]:
    work = place.directory
    arguments = [
        str(plan.kernel.program),
        f"mem={plan.memory}",
        f"umid={record.name}",
        f"uml_dir={work}/",
        f"ubd0={work}/disk,{plan.image}",
        *("root=/dev/ubda", "rw", "quiet", "seccomp=on"),
        *("con=null", "con0=fd:0,fd:1", "ssl=null"),
        f"init={ENTRY}",
        f"MACHINE_WORK={work}",
    ]
    environment = {**os.environ, "TMPDIR": _choose_memory_directory(work, plan.memory)}
    with (work / "console.log").open("wb") as console:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    place.write_record(machines.with_init(record, process.pid))
    return process


def _die_with_parent() -> None:
    syscalls.set_parent_death_signal(signal.SIGKILL)


def _choose_memory_directory(work: Path, memory: str) -> str:
    """Where the file lies that is the machine's memory: in memory if there is room (a container may have 64 MB)."""
    scale = {"K": 10, "M": 20, "G": 30}[memory[-1].upper()]
    with suppress(OSError):
        found = os.statvfs("/dev/shm")
        if found.f_bavail * found.f_frsize > int(memory[:-1]) << scale:
            return "/dev/shm"
    return str(work)


class _Tail:
    """Copies what a growing file gains."""

    def __init__(self, path: Path, sink: int) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self._sink = sink

    def copy(self) -> None:
        while data := os.read(self._fd, 1 << 16):
            while data:
                data = data[os.write(self._sink, data) :]


class _Input:
    """Hands our stdin over as it comes: numbered files, each complete when it has its name; an empty one ends it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._count = 0
        # A terminal's line editing does not go that way.
        self.sources = [] if sys.stdin is None or sys.stdin.isatty() else [0]
        if not self.sources:
            self._hand_over(b"")

    def copy(self) -> None:
        data = os.read(0, 1 << 20)
        self._hand_over(data)
        if not data:
            self.sources = []

    def _hand_over(self, data: bytes) -> None:
        stage = self._work / "stdin.new"
        stage.write_bytes(data)
        stage.rename(self._work / f"stdin.{self._count}")
        self._count += 1


def _follow_run(work: Path, process: subprocess.Popen[bytes], order: Order) -> int:
    tails = [_Tail(work / "stdout", 1), _Tail(work / "stderr", 2)]
    pidfd = os.pidfd_open(process.pid)
    stdin = _Input(work)
    deadline, started = time.monotonic() + BOOT_PATIENCE, False
    try:
        while pidfd not in (readable := select.select([pidfd, *stdin.sources], [], [], _POLL_INTERVAL)[0]):
            if readable:
                stdin.copy()
            for tail in tails:
                tail.copy()
            if not started and (work / "started").exists():
                started = True
                deadline = time.monotonic() + (order.timeout or float("inf"))
            if time.monotonic() > deadline:
                if started:
                    say(f"killed after {order.timeout:g} s")
                    return TIMED_OUT
                break
        for tail in tails:
            tail.copy()
    finally:
        os.close(pidfd)
    try:
        return int((work / "status").read_text())
    except (OSError, ValueError):
        log = (work / "console.log").read_text(errors="replace").splitlines()[-30:]
        end = "came to a bad end" if started else "did not come up"
        raise MachineError(f"the machine {end}; its console said:\n" + "\n".join(log)) from None
