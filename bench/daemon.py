#!/usr/bin/python3
"""The daemon: how long it takes to start, how large it is, how fast it answers; beside systemd and Podman's service.

Run it in a machine, as alice:

    tools/machine run --registry -- python3 /checkout/bench/daemon.py [--containers 200]

Calls are made on one connection, one after the other, by the same client in all cases but Podman's, which speaks HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

IMAGE = "localhost:5000/busybox:latest"
NAME, ROOT, MANAGER = "org.usercontainer1", "/org/usercontainer1", "org.usercontainer1.Manager"
SYSTEMD = "org.freedesktop.systemd1"
BUS = "org.freedesktop.DBus"
CALLS = 200


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def define(count: int) -> None:
    """Make so many definitions, of ours and, in Podman, containers."""
    directory = Path("~/.config/usercontainerd/containers").expanduser()
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("bench-*.toml"):
        old.unlink()
    for number in range(count):
        (directory / f"bench-{number:03}.toml").write_text(
            f'image = "{IMAGE}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nlabels = {{ number = "{number}" }}\n'
        )
    run("systemctl", "--user", "daemon-reload")
    run("usercontainer", "ps", "-a")


def define_in_podman(before: int, count: int) -> None:
    for number in range(before, count):
        run("podman", "create", "--network", "none", "--name", f"bench-{number:03}", IMAGE, "sleep", "1000")


def time_start() -> tuple[float, int]:
    """Milliseconds from the first call to its answer, and the resident memory in KiB afterwards."""
    run("systemctl", "--user", "stop", "usercontainerd")
    started = time.perf_counter()
    run("busctl", "--user", "call", NAME, ROOT, MANAGER, "ListContainers", "a{sv}", "0")
    elapsed = (time.perf_counter() - started) * 1000
    pid = run("systemctl", "--user", "show", "-P", "MainPID", "usercontainerd").strip()
    status = Path(f"/proc/{pid}/status").read_text()
    return elapsed, int(status.partition("VmRSS:")[2].split()[0])


async def time_calls(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1000)
    return times


async def time_bus(count: int) -> dict[str, list[float]]:
    bus = await MessageBus().connect()

    async def call(
        destination: str, path: str, interface: str, member: str, signature: str, body: list[object]
    ) -> None:
        reply = await bus.call(Message(destination, path, interface, member, signature=signature, body=body))
        assert reply is not None and reply.message_type is MessageType.METHOD_RETURN, reply

    manager = "org.freedesktop.systemd1.Manager"
    cases = {
        "ListContainers": (NAME, ROOT, MANAGER, "ListContainers", "a{sv}", [{}]),
        "GetManagedObjects": (NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "", []),
        "Get of one property": (NAME, ROOT, "org.freedesktop.DBus.Properties", "Get", "ss", [MANAGER, "Version"]),
        "systemd's ListUnitsByPatterns": (
            SYSTEMD, "/org/freedesktop/systemd1", manager, "ListUnitsByPatterns", "asas", [[], ["container@*"]],
        ),
        "systemd's ListUnits": (SYSTEMD, "/org/freedesktop/systemd1", manager, "ListUnits", "", []),
    }  # fmt: skip
    found = {name: await time_calls(lambda words=words: call(*words), count) for name, words in cases.items()}
    bus.disconnect()
    return found


class UnixConnection(http.client.HTTPConnection):
    """HTTP on Podman's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("podman")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def time_podman(count: int) -> tuple[float, int, list[float]]:
    """Milliseconds to the first answer of Podman's service, its memory in KiB, and milliseconds of each list."""
    path = f"/run/user/{os.getuid()}/bench-podman.sock"
    started = time.perf_counter()
    service = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{path}"], stderr=-3)
    try:
        while not os.path.exists(path):
            time.sleep(0.002)
        connection = UnixConnection(path)
        times = []
        first = 0.0
        for number in range(count + 1):
            began = time.perf_counter()
            connection.request("GET", "/v5.0.0/libpod/containers/json?all=true")
            connection.getresponse().read()
            if not number:
                first = (time.perf_counter() - started) * 1000
            else:
                times.append((time.perf_counter() - began) * 1000)
        status = Path(f"/proc/{service.pid}/status").read_text()
        return first, int(status.partition("VmRSS:")[2].split()[0]), times
    finally:
        service.terminate()
        service.wait()


class News:
    """When the last change of a property came, from systemd and from us, on one connection."""

    def __init__(self) -> None:
        self.moments: dict[tuple[str, str, str], float] = {}  # path, property, value

    def take(self, message: Message) -> None:
        if message.member == "PropertiesChanged":
            moment = time.perf_counter()
            for name, value in message.body[1].items():
                self.moments[message.path, name, str(value.value)] = moment

    async def wait(self, path: str, name: str, *values: str) -> float:
        """The moment at which it came to be one of these."""
        while True:
            for value in values:
                if moment := self.moments.pop((path, name, value), 0.0):
                    return moment
            await asyncio.sleep(0.001)


async def time_changes(rounds: int) -> dict[str, list[float]]:
    """Milliseconds from systemd's signal, or a command's end, to that of ours."""
    bus, news = await MessageBus().connect(), News()
    bus.add_message_handler(news.take)
    for sender, path in ((SYSTEMD, "/org/freedesktop/systemd1/unit"), (NAME, ROOT)):
        rule = f"type='signal',sender='{sender}',member='PropertiesChanged',path_namespace='{path}'"
        await bus.call(Message(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", signature="s", body=[rule]))
    await bus.call(Message(SYSTEMD, "/org/freedesktop/systemd1", f"{SYSTEMD}.Manager", "Subscribe"))
    await bus.call(Message(NAME, ROOT, MANAGER, "Subscribe", signature="a{sv}", body=[{}]))
    unit = "container@bench-000.service"
    unit_path = "/org/freedesktop/systemd1/unit/container_40bench_2d000_2eservice"
    ours = f"{ROOT}/container/bench_2d000"
    image = await bus.call(Message(NAME, ROOT, MANAGER, "GetImage", signature="sa{sv}", body=[IMAGE, {}]))
    times: dict[str, list[float]] = {}

    async def act(what: str, command: tuple[str, ...], theirs: tuple[str, ...], state: str) -> None:
        news.moments.clear()
        running = asyncio.create_task(asyncio.to_thread(run, *command))
        async with asyncio.timeout(30):
            told = await news.wait(unit_path, "ActiveState", *theirs)
            times.setdefault(what, []).append((await news.wait(ours, "State", state) - told) * 1000)
        await running
        await asyncio.sleep(0.2)

    kill = "kill -9 $(systemctl --user show -P MainPID container@bench-000.service)"
    for _ in range(rounds):
        await act("systemctl start", ("systemctl", "--user", "start", unit), ("active",), "running")
        await act("systemctl stop", ("systemctl", "--user", "stop", unit), ("inactive", "failed"), "exited")
        await act("usercontainer start", ("usercontainer", "start", "bench-000"), ("active",), "running")
        await act("its end, by itself", ("sh", "-c", kill), ("inactive", "failed"), "exited")
        for verb in ("tag", "untag"):
            news.moments.clear()
            await asyncio.to_thread(run, "usercontainer", verb, IMAGE, "localhost/bench:1")
            ended = time.perf_counter()
            async with asyncio.timeout(30):
                while not (
                    came := [
                        m
                        for (path, name, _), m in news.moments.items()
                        if (path, name) == (image.body[0], "Names")
                    ]
                ):
                    await asyncio.sleep(0.001)
            times.setdefault("another process's tag", []).append((came[0] - ended) * 1000)
    bus.disconnect()
    return times


def measure(count: int, before: int) -> None:
    define(count)
    define_in_podman(before, count)
    starts = [time_start() for _ in range(7)]
    calls = asyncio.run(time_bus(CALLS))
    changes = asyncio.run(time_changes(10))
    first, memory, listed = time_podman(max(10, CALLS // 10))
    print(f"\n### {count} container{'s' * (count != 1)}\n\n| | median | max |\n|---|---|---|")
    print(
        f"| first call, the daemon's start included (ms) | {statistics.median(t for t, _ in starts):.0f} "
        f"| {max(t for t, _ in starts):.0f} |"
    )
    print(f"| resident memory (MiB) | {statistics.median(m for _, m in starts) / 1024:.1f} | |")
    for name, times in calls.items():
        print(f"| {name} (ms) | {statistics.median(times):.2f} | {max(times):.1f} |")
    for name, times in changes.items():
        print(f"| a signal tells of {name}, after (ms) | {statistics.median(times):.0f} | {max(times):.0f} |")
    print(f"| Podman's service: first answer (ms) | {first:.0f} | |")
    print(f"| Podman's service: resident memory (MiB) | {memory / 1024:.1f} | |")
    print(
        f"| Podman's service: list of containers (ms) | {statistics.median(listed):.2f} | {max(listed):.1f} |"
    )


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=200)
    options = parser.parse_args()
    run("usercontainer", "pull", "-q", IMAGE)
    run("podman", "pull", "-q", IMAGE)
    measure(1, 0)
    measure(options.containers, 1)
    started = time.perf_counter()
    asyncio.run(time_thousand())
    print(f"\n1,000 calls of ListContainers in a row: {time.perf_counter() - started:.2f} s")
    run("systemctl", "--user", "stop", "usercontainerd")
    daemon = subprocess.Popen(["/usr/libexec/usercontainerd/usercontainerd", "--idle", "2"])
    started = time.perf_counter()
    daemon.wait()
    print(f"Left {time.perf_counter() - started:.1f} s after its start with an idle time of 2 s.")


async def time_thousand() -> None:
    bus = await MessageBus().connect()
    for _ in range(1000):
        await bus.call(Message(NAME, ROOT, MANAGER, "ListContainers", signature="a{sv}", body=[{}]))
    bus.disconnect()


if __name__ == "__main__":
    main()
