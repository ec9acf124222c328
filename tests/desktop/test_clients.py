"""Clients of other makers: each introspects, calls, has the errors by name, and watches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from tests.support.bus import CONTAINER, MANAGER, NAME, ROOT
from tests.support.containers import BUSYBOX, SLEEPER, Container, run, wait_until

Make = Callable[..., Container]
PROGRAMS = Path(__file__).parent / "programs"
SCRIPT = str(Path(__file__).parents[2] / "examples/watch-containers.sh")


pytestmark = pytest.mark.usefixtures("bus_image")


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A program that goes with all that it has started, after a minute at the latest."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = Timer(60, os.killpg, (process.pid, signal.SIGKILL))
    end.start()
    try:
        yield process
    finally:
        end.cancel()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line or process.poll() is None, process.communicate()
    return line.rstrip("\n")


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """The next line that has this in it."""
    while wanted not in (line := read_line(process)):
        assert line or process.poll() is None
    return line


@pytest.mark.parametrize("library", ["gio", "dasbus", "dbus_next"])
def test_libraries(library: str, container: Make) -> None:
    one = container(SLEEPER)
    with started(sys.executable, str(PROGRAMS / f"client_{library}.py"), one.name) as client:
        found = json.loads(read_line(client))
        assert found["version"]
        assert one.name in found["containers"]
        assert found["error"] == "org.usercontainer1.Error.NoSuchContainer"
        assert found["state"] == "created"
        one.start()
        read_until(client, "running")
        one.stop()
        read_until(client, "exited")


def list_members(text: str) -> set[tuple[str, str]]:
    """(interface, member) of introspection data."""
    root = xml.etree.ElementTree.fromstring(text[text.index("<node") :])
    return {
        (interface.get("name", ""), member.get("name", ""))
        for interface in root.iter("interface")
        for member in interface
        if member.tag in ("method", "property", "signal")
    }


def shipped(interface: str) -> set[tuple[str, str]]:
    return list_members(Path(f"/usr/share/dbus-1/interfaces/{interface}.xml").read_text(encoding="utf-8"))


def test_gdbus(container: Make) -> None:
    one = container(SLEEPER)
    where = ("--session", "--dest", NAME, "--object-path")
    assert shipped(MANAGER) <= list_members(run("gdbus", "introspect", *where, ROOT, "--xml").stdout)
    listed = run("gdbus", "call", *where, ROOT, "--method", f"{MANAGER}.ListContainers", "{}").stdout
    assert f"'{one.name}', 'created', '{BUSYBOX}'" in listed
    path = listed.split("objectpath '")[1].split("'")[0]
    assert shipped(CONTAINER) <= list_members(run("gdbus", "introspect", *where, path, "--xml").stdout)
    refused = run(
        "gdbus", "call", *where, ROOT, "--method", f"{MANAGER}.GetContainer", "nobody", "{}", check=False
    )
    assert "org.usercontainer1.Error.NoSuchContainer" in refused.stderr
    with started("gdbus", "monitor", "--session", "--dest", NAME) as monitor:
        read_until(monitor, "is owned by")
        run("gdbus", "call", *where, path, "--method", f"{CONTAINER}.Start", "{'wait': <true>}")
        assert path in read_until(monitor, "'State': <'running'>")
        run("gdbus", "call", *where, path, "--method", f"{CONTAINER}.Stop", "{'timeout': <uint32 1>}")
        read_until(monitor, "'State': <'exited'>")


def test_busctl(container: Make) -> None:
    one = container(SLEEPER)
    introspected = run("busctl", "--user", "introspect", NAME, ROOT, MANAGER).stdout
    for _, member in shipped(MANAGER):
        assert f".{member} " in introspected
    path = run(
        "busctl", "--user", "call", NAME, ROOT, MANAGER, "GetContainer", "sa{sv}", one.name, "0"
    ).stdout
    values = run("busctl", "--user", "introspect", NAME, path.split('"')[1], CONTAINER).stdout
    assert f'.Name property s "{one.name}" const' in " ".join(values.split())
    assert '.State property s "created" emits-change' in " ".join(values.split())


def test_plain_shell(container: Make) -> None:
    one = container(SLEEPER)
    assert f"{one.name} created {BUSYBOX}" in run(SCRIPT, "list").stdout.splitlines()
    with started(SCRIPT, "watch") as watching:
        read_until(watching, f"{one.name} created")
        wait_until(lambda: "busctl" in run("ps", "--ppid", str(watching.pid)).stdout, "it watches")
        run(SCRIPT, "start", one.name)
        read_until(watching, f"{one.name} running")
        run(SCRIPT, "stop", one.name)
        read_until(watching, f"{one.name} exited")
        # Whoever watches has the service started again: it may leave or be killed.
        run("systemctl", "--user", "kill", "-s", "KILL", "usercontainerd")
        read_until(watching, f"{one.name} exited")
        one.start()
        read_until(watching, f"{one.name} running")
    refused = run(SCRIPT, "start", "nobody", check=False)
    assert refused.returncode != 0
    assert "nobody" in refused.stderr
    assert run(SCRIPT, "dance", check=False).returncode == 2
