"""The record of each running machine: who keeps it, its init, its cgroup, its files.

A machine is a directory below `machines/` of the cache. Its keeper (the process that booted it) holds `lock`
in it for as long as the machine lives: a record whose lock is free belongs to a keeper that is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from machinelib.cache import find_cache_directory, lock_file, remove_tree
from machinelib.cgroup import PREFIX, remove_cgroup, require_hierarchy
from machinelib.hosttools import MachineError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")


@dataclass(frozen=True)
class Record:
    """What others need to know of a machine to enter, stop or sweep it."""

    name: str
    cgroup: str  # of the native lane
    keeper: int
    init: int = 0
    init_started: int = 0
    ready: bool = False
    lane: str = "native"


@dataclass(frozen=True)
class Place:
    """A machine's directory, and the lock by which its keeper says that it lives."""

    directory: Path
    lock_fd: int

    def write_record(self, record: Record) -> None:
        """Make the record visible as a whole or not at all."""
        stage = self.directory / "record.new"
        stage.write_text(json.dumps(asdict(record)))
        stage.rename(self.directory / "record.json")


def claim_place(name: str, lane: str = "native") -> tuple[Place, Record]:
    """Take a name for a machine that this process is going to keep."""
    if not _NAME.fullmatch(name):
        raise MachineError(f"'{name}' is no name for a machine: letters, digits, - and _ only")
    with _lock_machines() as root:
        directory = root / name
        _sweep(directory)
        if directory.exists():
            raise MachineError(
                f"machine '{name}' is already running; tools/machine stop --name {name} ends it"
            )
        directory.mkdir(mode=0o700)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place = Place(directory, fd)
        cgroup = f"{PREFIX}-{name}-{secrets.token_hex(4)}" if lane == "native" else ""
        record = Record(name, cgroup, os.getpid(), lane=lane)
        place.write_record(record)
    return place, record


def find_machine(name: str) -> Record:
    """The record of a running machine."""
    for record in list_machines():
        if record.name == name:
            return record
    raise MachineError(f"no machine '{name}' is running; tools/machine boot --name {name} starts one")


def list_machines() -> list[Record]:
    """The running machines; what dead keepers left is swept first."""
    sweep_machines()
    root = find_cache_directory() / "machines"
    records = [_read_record(path) for path in sorted(root.iterdir())] if root.is_dir() else []
    return [record for record in records if record is not None]


def sweep_machines() -> None:
    """Remove whatever machines left whose keeper was killed."""
    with _lock_machines() as root:
        for directory in root.iterdir():
            _sweep(directory)


def remove_place(place: Place) -> None:
    """The keeper's own end: everything of the machine goes."""
    _remove_remains(place.directory)
    os.close(place.lock_fd)


def read_start_time(pid: int) -> int:
    """When a process began (clock ticks since boot); with the PID it names a process for good. 0: none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def kill_process(pid: int, started: int) -> None:
    """SIGKILL a process if it is still the one that was meant."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if read_start_time(pid) == started:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def with_init(record: Record, pid: int) -> Record:
    """The record once the machine's init runs."""
    return replace(record, init=pid, init_started=read_start_time(pid))


@contextmanager
def _lock_machines() -> Iterator[Path]:
    cache = find_cache_directory()
    (cache / "locks").mkdir(exist_ok=True)
    with lock_file(cache / "locks" / "machines"):
        root = cache / "machines"
        root.mkdir(exist_ok=True)
        yield root


def _read_record(directory: Path) -> Record | None:
    try:
        return Record(**json.loads((directory / "record.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _sweep(directory: Path) -> None:
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        remove_tree(directory)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        _remove_remains(directory)
    finally:
        os.close(fd)


def _remove_remains(directory: Path) -> None:
    record = _read_record(directory)
    if record is not None and record.init:
        kill_process(record.init, record.init_started)
    if record is not None and record.cgroup:
        remove_cgroup(require_hierarchy() / record.cgroup)
    # Only the directory itself is seen here: what was mounted in it died with the machine's mount namespace.
    remove_tree(directory)
