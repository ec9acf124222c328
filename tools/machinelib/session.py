"""Runs a command in a running machine, as one of its users, as if that user had logged in."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from machinelib import syscalls
from machinelib.cgroup import enter_cgroup
from machinelib.guest import reset_signals
from machinelib.hosttools import MachineError
from machinelib.machines import Record

TIMED_OUT = 124


@dataclass(frozen=True)
class Account:
    """A user of the machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


@dataclass(frozen=True)
class Order:
    """A command to run in a machine."""

    arguments: tuple[str, ...]  # empty: a login shell
    user: str = "alice"
    timeout: float | None = None
    # The file descriptor of a terminal of the machine to run on; None: our own stdin, stdout and stderr.
    terminal: int | None = None


def read_account(root: Path, name: str) -> Account:
    """Look a user up in a root file system's own files."""
    for line in (root / "etc/passwd").read_text().splitlines():
        found, _, uid, gid, _, home, shell = line.split(":")
        if found == name:
            break
    else:
        raise MachineError(f"there is no user '{name}' in the machine (alice, bob and root are)")
    groups = [
        int(fields[2])
        for fields in (line.split(":") for line in (root / "etc/group").read_text().splitlines())
        if name in fields[3].split(",")
    ]
    return Account(name, int(uid), int(gid), tuple({int(gid), *groups}), home, shell)


def build_environment(account: Account, outside: Mapping[str, str]) -> dict[str, str]:
    """The environment of a login session (PATH is what Debian gives a user)."""
    path = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
    if account.uid == 0:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
        "PATH": path,
        "LANG": "C.UTF-8",
        "TERM": outside.get("TERM", "dumb"),
    }
    if account.uid != 0:
        environment["XDG_RUNTIME_DIR"] = f"/run/user/{account.uid}"
        environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path=/run/user/{account.uid}/bus"
    return environment


def become_user(account: Account) -> None:
    """Take on a user's identity for the exec to come, with the settings that a login has."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    os.umask(0o022)
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    # After the change of user, which resets it.
    syscalls.set_parent_death_signal(signal.SIGKILL)
    os.chdir(account.home)
    reset_signals()


class Session:
    """A command that runs in a machine."""

    def __init__(self, record: Record, hierarchy: Path, order: Order) -> None:
        self._record = record
        self._order = order
        self._account = read_account(Path(f"/proc/{record.init}/root"), order.user)
        self._scope = make_scope(hierarchy / record.cgroup, self._account)
        try:
            self.pid = self._start()
        except BaseException:
            self._scope.rmdir()
            raise

    def _start(self) -> int:
        try:
            pidfd = os.pidfd_open(self._record.init)
            syscalls.set_namespaces(pidfd, syscalls.CLONE_NEWPID)  # for our children, not for us
            pid = os.fork()
        except OSError as error:
            raise MachineError(f"cannot enter the machine: {error}") from error
        if pid == 0:
            self._run_inside(pidfd)
        os.close(pidfd)
        return pid

    def _run_inside(self, pidfd: int) -> None:
        arguments = self._order.arguments or (self._account.shell, "-l")
        try:
            enter_cgroup(self._scope)
            syscalls.set_namespaces(
                pidfd,
                syscalls.CLONE_NEWNS
                | syscalls.CLONE_NEWUTS
                | syscalls.CLONE_NEWIPC
                | syscalls.CLONE_NEWNET
                | syscalls.CLONE_NEWCGROUP,
            )
            if self._order.terminal is not None:
                os.login_tty(self._order.terminal)
                os.fchown(0, self._account.uid, 5)
            become_user(self._account)
            os.execvpe(arguments[0], arguments, build_environment(self._account, os.environ))
        except FileNotFoundError as error:
            print(f"machine: {arguments[0]}: {error.strerror} in the machine", file=sys.stderr, flush=True)
            os._exit(127)
        except BaseException as error:
            print(f"machine: cannot run {arguments[0]}: {error}", file=sys.stderr, flush=True)
            os._exit(126)

    def wait(self) -> int:
        """The exit status as a shell would tell it; TIMED_OUT when the order's time was up."""
        timeout = self._order.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            if deadline is not None and not self._wait_until(deadline):
                print(f"machine: killed after {timeout:g} s", file=sys.stderr, flush=True)
                self.kill()
                os.waitpid(self.pid, 0)
                return TIMED_OUT
            _, status = os.waitpid(self.pid, 0)
        except BaseException:
            self.kill()
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            raise
        finally:
            with suppress(OSError):  # something that it left in the background: gone with the machine
                self._scope.rmdir()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _wait_until(self, deadline: float) -> bool:
        pidfd = os.pidfd_open(self.pid)
        try:
            readable, _, _ = select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(pidfd)
        return bool(readable)

    def kill(self) -> None:
        """End it with all that it started in its scope."""
        with suppress(OSError):
            (self._scope / "cgroup.kill").write_text("1")
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def make_scope(machine: Path, account: Account) -> Path:
    """A cgroup such as logind makes for a session; systemd does not know it and leaves it alone."""
    parent = machine / "user.slice" / f"user-{account.uid}.slice"
    if account.uid == 0 or not parent.is_dir():
        parent = machine / "user.slice"
    parent.mkdir(exist_ok=True)
    scope = parent / f"machine-{os.getpid()}.scope"
    scope.mkdir()
    return scope


def run_order(record: Record, hierarchy: Path, order: Order) -> int:
    """Run a command in a machine to its end; its exit status."""
    return Session(record, hierarchy, order).wait()
