"""What a running container does: its processes, what it uses, its ports; and waiting for its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bus import CONTAINER, call, path_of
from tests.support.containers import BUSYBOX, SLEEPER, Container, defined, run

Make = Callable[..., Container]

pytestmark = pytest.mark.usefixtures("bus_image")

SERVER = (
    f'image = "{BUSYBOX}"\nports = ["127.0.0.1:18080-18081:80-81"]\nuser = "www"\nstop_timeout = 0\n'
    'command = ["sh", "-c", "sleep 999 & wait"]\noutput = "pipe"\n'
)


@pytest.fixture(scope="module")
def server() -> Iterator[Container]:
    """With all that is beside a container's own processes: pasta and a copier."""
    with defined("top", SERVER) as one:
        one.start()
        yield one


def read_rows(table: str) -> list[list[str]]:
    """The cells of a table."""
    return [re.split(" {3,}", line) for line in table.splitlines()]


def test_processes_are_the_containers_own(server: Container) -> None:
    rows = read_rows(run("usercontainer", "top", server.name).stdout)
    assert rows[0] == ["USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        ("www", "1", "0", "sh -c sleep 999 & wait"),
        ("www", rows[2][1], "1", "sleep 999"),
    ]
    rows = read_rows(run("usercontainer", "top", server.name, "-o", "hpid,comm,huser").stdout)
    assert rows[0] == ["HPID", "COMMAND", "HUSER"]
    assert rows[1][:2] == [str(server.pid), "sh"] and int(rows[1][2]) > 1000
    assert '"foo" is no column' in run("usercontainer", "top", server.name, "foo", check=False).stderr


def test_what_it_uses(server: Container) -> None:
    shown = json.loads(run("usercontainer", "stats", "--no-stream", "--format=json", server.name).stdout)[0]
    assert shown["name"] == server.name
    assert shown["cpu_percent"].endswith("%") and shown["net_io"] != "-- / --"
    has_memory = "memory" in (server.cgroup / "cgroup.controllers").read_text()
    assert (shown["mem_usage"] == "-- / --") != has_memory
    fields = run("usercontainer", "stats", "--no-stream", "--format={{.Name}} {{.PIDs}}").stdout.split()
    assert server.name in fields


def test_its_ports(server: Container) -> None:
    lines = run("usercontainer", "port", server.name).stdout.splitlines()
    assert lines == ["80/tcp -> 127.0.0.1:18080", "81/tcp -> 127.0.0.1:18081"]
    assert run("usercontainer", "port", server.name, "81").stdout == "127.0.0.1:18081\n"
    assert run("usercontainer", "port", server.name, "82/udp", check=False).returncode == 125


def test_over_the_bus(server: Container) -> None:
    path = path_of(server)
    headings, rows = call(path, CONTAINER, "Top", "asa{sv}", "2", "pid", "args", "0")
    assert (headings, rows[0]) == (["PID", "COMMAND"], ["1", "sh -c sleep 999 & wait"])
    (stats,) = call(path, CONTAINER, "GetStats", "a{sv}", "0")
    assert stats["cpu-time"]["data"] > 0 and "received" in stats


def test_waiting_for_the_end(container: Make) -> None:
    """One that runs, one that has ended before, one that is removed as it ends, and one that is not there."""
    ended = container(f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "exit 7"]\nnetwork = "none"\n')
    ended.start(check=False)
    ended.finish()
    assert run("usercontainer", "wait", ended.name).stdout == "7\n"
    runs = container(SLEEPER)
    runs.start()
    name = f"gone-{os.urandom(3).hex()}"
    run(
        "usercontainer",
        "run",
        "-d",
        "--rm",
        "--name",
        name,
        "--network=none",
        BUSYBOX,
        "sh",
        "-c",
        "sleep 1; exit 3",
    )
    waiting = subprocess.Popen(
        ("usercontainer", "wait", "--ignore", name, runs.name, ended.name, "no-such"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "3\n"
        run("usercontainer", "kill", runs.name)
        assert waiting.communicate(timeout=30)[0] == "137\n7\n-1\n"
    finally:
        waiting.kill()
        waiting.wait()
    assert (
        run("usercontainer", "wait", "--condition=created", "--condition=exited", runs.name).stdout == "137\n"
    )
    assert 'no such container "no-such"' in run("usercontainer", "wait", "no-such", check=False).stderr
