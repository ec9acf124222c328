"""A machine with SELinux: its policy, its labels, what was denied; and a store that was made and used there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.containers import fetch, run, wait_until
from tests.support.login import as_alice, find_daemon, show_unit, write_definition

STORE = Path("/home/alice/.local/share/usercontainerd")
RUNTIME = Path("/run/user/1000")
MODULE = "/usr/share/selinux/packages/default/usercontainerd.pp.bz2"
# Of semodule, load_policy and restorecon, which have no need of all that they try.
_TOOLS = ("semanage_t", "load_policy_t", "setfiles_t")
UNIT = "container@page.service"
PORT = 18080

_PAGE = f'image = "localhost:5000/web:latest"\nports = ["127.0.0.1:{PORT}:8080"]\n'


def install_module() -> None:
    """As the package's scripts do: not loaded by semodule, which would do it for each of several."""
    run("semodule", "-n", "-s", "default", "-X", "200", "-i", MODULE, timeout=120)
    run("load_policy")


def remove_module() -> None:
    """As the package's scripts do."""
    run("semodule", "-n", "-s", "default", "-X", "200", "-r", "usercontainerd", timeout=120)
    run("load_policy")


def read_type(path: Path) -> str:
    """The type that a file has."""
    return run("stat", "--format=%C", str(path)).stdout.split(":")[2]


def list_mislabelled(*places: Path) -> list[str]:
    """What restorecon would change below these places."""
    shown = run("restorecon", "-n", "-v", "-R", *map(str, places)).stdout
    return [line for line in shown.splitlines() if line.startswith("Would relabel")]


def list_denials() -> list[str]:
    """What was denied since the log was cleared, by the kernel, systemd and D-Bus; but to SELinux's own tools."""
    lines = [line for line in run("dmesg").stdout.splitlines() if "denied" in line]
    return [line for line in lines if not any(f":{domain}:" in line for domain in _TOOLS)]


def find_doctor(name: str, *settings: str) -> dict[str, str]:
    """What doctor found out about one thing; ``settings`` are of the environment."""
    shown = json.loads(as_alice("env", *settings, "usercontainer", "doctor", "--json", check=False).stdout)
    return next(finding for finding in shown if finding["name"] == name)


def follow_advice(finding: dict[str, str]) -> None:
    """Run, as root, the commands that doctor gave."""
    assert finding["verdict"] == "lost", finding
    run("sh", "-ec", finding["mend"].replace("sudo ", ""))


@dataclass(frozen=True)
class Ran:
    """What was seen while a container ran: its page, and what its process is labelled as."""

    page: str
    domain: str


@pytest.fixture(scope="session")
def home() -> None:
    """Alice's directories have the labels of a Fedora from the first; Debian's policy gives them by restorecon."""
    as_alice("mkdir", "-p", "/home/alice/.local/share", "/home/alice/.config", "/home/alice/.cache")
    run("restorecon", "-R", "-F", "/home/alice")


@pytest.fixture(scope="session")
def ran(home: None) -> Iterator[Ran]:
    """A store made under SELinux: a container that was published, and one with volumes, which still runs."""
    Path("/proc/sys/kernel/printk_ratelimit").write_text("0")
    run("dmesg", "--clear")
    write_definition("page", _PAGE)
    as_alice("systemctl", "--user", "start", UNIT)
    page = fetch(PORT)
    domain = Path(f"/proc/{show_unit(UNIT, 'MainPID')}/attr/current").read_text().split(":")[2]
    find_daemon()
    as_alice("systemctl", "--user", "stop", UNIT)
    as_alice(
        *("usercontainer", "create", "--name", "kept", "-v", "data:/www", "-v", "empty:/empty"),
        *("localhost:5000/web:latest", "sleep", "1000"),
    )
    start = (
        *("busctl", "--user", "call", "org.usercontainer1", "/org/usercontainer1/container/kept"),
        *("org.usercontainer1.Container", "Start", "a{sv}", "0"),
    )
    wait_until(lambda: as_alice(*start, check=False).returncode == 0, "the daemon knows it and starts it")
    wait_until(lambda: show_unit("container@kept.service", "ActiveState") == "active", "it runs", 60)
    as_alice("usercontainer", "exec", "--user", "0", "kept", "touch", "/written")
    yield Ran(page, domain)
    as_alice("usercontainer", "rm", "-f", "kept")
