"""What tests that run as root do as the user alice, in her session."""

from __future__ import annotations

import subprocess

from tests.support.containers import run

_LOGIN = (
    *("runuser", "-u", "alice", "--", "env", "-C", "/home/alice", "HOME=/home/alice", "LANG=C.UTF-8"),
    *("PATH=/usr/local/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR=/run/user/1000"),
    "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus",
)


def as_alice(*command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command as the user alice has it in her session."""
    return run(*_LOGIN, *command, check=check, timeout=timeout)


def show_unit(unit: str, name: str) -> str:
    """A property of a unit of alice's."""
    return as_alice("systemctl", "--user", "show", "--value", "-p", name, unit).stdout.strip()


def write_definition(name: str, text: str) -> None:
    """Write a definition of alice's, and have the generator see it."""
    path = f"/home/alice/.config/usercontainerd/containers/{name}.toml"
    as_alice("sh", "-c", 'mkdir -p "${1%/*}" && printf %s "$2" >"$1"', "sh", path, text)
    as_alice("systemctl", "--user", "daemon-reload")


def find_daemon() -> int:
    """The process of the daemon, started by a call if there is none; a connection of alice's keeps it."""
    as_alice(
        *("busctl", "--user", "call", "org.usercontainer1", "/org/usercontainer1"),
        *("org.usercontainer1.Manager", "ListContainers", "a{sv}", "0"),
    )
    return int(show_unit("usercontainerd.service", "MainPID"))
