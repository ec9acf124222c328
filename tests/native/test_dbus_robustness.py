"""What the daemon has to bear: descriptors of every wrong kind, clients that vanish, a systemd that starts anew."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant

from tests.support.bus import (
    CONTAINER,
    IMAGE,
    JOB,
    MANAGER,
    NAME,
    ROOT,
    busctl,
    call_manager,
    path_of,
    read,
    wait_for,
)
from tests.support.busfuzz import daemon_pid, measure
from tests.support.containers import BUSYBOX, SLEEPER, Container, run, wait_until
from tests.support.watching import watch
from usercontainerd.daemon.connection import Connection, connect_bus

Make = Callable[..., Container]
ENDED = 60.0  # seconds within which whatever was given nonsense has ended


pytestmark = pytest.mark.usefixtures("bus_image", "no_logins")


async def connect() -> Connection:
    return await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])


async def send(
    bus: Connection, path: str, interface: str, member: str, signature: str, *body: Any, fds: list[int]
) -> Message:
    """Call a method and return the answer, error or not."""
    message = Message(
        destination=NAME, path=path, interface=interface, member=member,
        signature=signature, body=list(body), unix_fds=fds,
    )  # fmt: skip
    reply = await asyncio.wait_for(bus.call(message), ENDED)
    assert reply is not None
    return reply


# Every method that takes descriptors: object, interface, member, signature, arguments with one descriptor.
def plan_calls(container: str, image: str) -> dict[str, tuple[str, str, str, tuple[Any, ...]]]:
    return {
        "Login": (ROOT, MANAGER, "ssha{sv}", ("localhost:5000", "ann", 0, {})),
        "Load": (ROOT, MANAGER, "ha{sv}", (0, {})),
        "Import": (ROOT, MANAGER, "hsa{sv}", (0, "localhost/imported:1", {})),
        "Save": (image, IMAGE, "ha{sv}", (0, {})),
        "Export": (container, CONTAINER, "ha{sv}", (0, {})),
        "CopyIn": (container, CONTAINER, "hsa{sv}", (0, "/tmp", {})),
        "CopyOut": (container, CONTAINER, "sha{sv}", ("/etc", 0, {})),
        "Exec": (container, CONTAINER, "ashhha{sv}", (["cat"], 0, 0, 0, {})),
    }


@contextmanager
def odd_descriptors(directory: Path) -> Iterator[dict[str, int]]:
    """Descriptors that are no sensible thing to read from or write to, by name."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    reader, lonely_writer = os.pipe()
    os.close(reader)
    lonely_reader, writer = os.pipe()
    os.close(writer)
    one, other = socket.socketpair()
    other.close()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory / "listening"))
    listening.listen()
    readable = directory / "readable"
    readable.write_text("no archive\n" * 1000)
    found = {
        "directory": os.open(directory, os.O_RDONLY | os.O_DIRECTORY),
        "O_PATH": os.open(readable, os.O_PATH),
        "read-only": os.open(readable, os.O_RDONLY),
        "write-only": os.open(directory / "written", os.O_WRONLY | os.O_CREAT),
        "endless zeros": os.open("/dev/zero", os.O_RDWR),
        "endless noise": os.open("/dev/urandom", os.O_RDONLY),
        "full": os.open("/dev/full", os.O_RDWR),
        "pipe without a reader": lonely_writer,
        "pipe without a writer": lonely_reader,
        "socket without a peer": one.detach(),
        "listening socket": listening.detach(),
        "not blocking": os.open(fifo, os.O_RDWR | os.O_NONBLOCK),
        "pidfd": os.pidfd_open(os.getpid()),
        "memfd": os.memfd_create("empty"),
    }
    try:
        yield found
    finally:
        for fd in found.values():
            os.close(fd)


# Nothing is wrong with these as such, and the one who passed them decides when it is enough.
ENDLESS = {
    *(("Exec", kind) for kind in ("endless zeros", "endless noise", "full", "listening socket", "pidfd")),
    *(
        (member, "not blocking")  # a FIFO that nobody else reads or writes
        for member in ("Load", "Import", "Save", "Export", "CopyIn", "CopyOut", "Exec")
    ),
}


def test_descriptors_of_every_wrong_kind(container: Make, tmp_path: Path) -> None:
    one = container(SLEEPER)
    one.start()
    (image_path,) = call_manager("GetImage", "sa{sv}", BUSYBOX, "0")
    calls = plan_calls(path_of(one), image_path)
    pid = daemon_pid()

    async def see_end(bus: Connection, job: str, what: tuple[str, str]) -> None:
        wait = 0.1 if what in ENDLESS else ENDED
        try:
            async with asyncio.timeout(wait):
                while (await read_job(bus, job))[0] == "running":
                    await asyncio.sleep(0.02)
        except TimeoutError:
            assert what in ENDLESS, what
            await bus.ask(NAME, job, JOB, "Cancel", "a{sv}", [{}])
            async with asyncio.timeout(ENDED):
                while (state := (await read_job(bus, job))[0]) == "running":
                    await asyncio.sleep(0.02)
            # A command in a container is ended like any other process, and has a status then. A copy out may just fit
            # into the FIFO, by what was read from it before.
            ends = {"Exec": ["done"], "CopyOut": ["done", "cancelled"]}
            assert state in ends.get(what[0], ["cancelled"]), what
            return
        state, name, message = await read_job(bus, job)
        assert state in ("done", "failed"), what
        assert name not in ("org.usercontainer1.Error.Failed", "org.usercontainer1.Error.Cancelled"), (
            what,
            message,
        )
        assert (state == "failed") == bool(message)

    async def try_all(descriptors: dict[str, int]) -> None:
        bus = await connect()
        for member, (path, interface, signature, body) in calls.items():
            for kind, fd in descriptors.items():
                if (member, kind) == ("Login", "not blocking"):
                    continue  # it would wait for ever, and ends with the client: see test_clients_that_vanish
                reply = await send(bus, path, interface, member, signature, *body, fds=[fd])
                if reply.message_type is MessageType.ERROR:
                    assert reply.error_name in (
                        "org.usercontainer1.Error.InvalidArgument",
                        "org.usercontainer1.Error.HostError",
                    ), (member, kind, reply.body)
                elif member != "Login":
                    await see_end(bus, reply.body[0], (member, kind))
                else:
                    assert kind == "read-only", kind
                assert (kind in ("directory", "O_PATH")) <= (reply.message_type is MessageType.ERROR), kind
        bus.disconnect()

    with odd_descriptors(tmp_path) as descriptors:
        asyncio.run(try_all(descriptors))
    assert daemon_pid() == pid
    wait_until(lambda: measure(pid)[0] < 14, "its descriptors are closed")


async def read_job(bus: Connection, job: str) -> list[str]:
    """State, ErrorName and Message."""
    (found,) = await bus.ask(NAME, job, "org.freedesktop.DBus.Properties", "GetAll", "s", [JOB])
    return [found[name].value for name in ("State", "ErrorName", "Message")]


def test_clients_that_vanish(container: Make) -> None:
    """In the middle of each call that has descriptors, some of them for ever open."""
    one = container(SLEEPER)
    one.start()
    (image_path,) = call_manager("GetImage", "sa{sv}", BUSYBOX, "0")
    path = path_of(one)
    calls = plan_calls(path, image_path)
    calls["Logs"] = (path, CONTAINER, "a{sv}", ({"follow": Variant("b", True)},))
    calls["OpenPTY"] = (path, CONTAINER, "asa{sv}", (["sh"], {}))
    pid = daemon_pid()

    async def vanish(member: str, seconds: float) -> None:
        path, interface, signature, body = calls[member]
        bus = await connect()
        reader, writer = os.pipe()
        fd = writer if member in ("Save", "Export") else reader
        fds = [] if member in ("Logs", "OpenPTY") else [fd]
        pending = asyncio.create_task(send(bus, path, interface, member, signature, *body, fds=fds))
        await asyncio.sleep(seconds)
        bus.disconnect()
        pending.cancel()
        os.close(reader)
        os.close(writer)
        await asyncio.gather(pending, return_exceptions=True)

    for member in calls:
        for seconds in (0.0, 0.002, 0.05, 0.3):
            asyncio.run(vanish(member, seconds))
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: not children.read_text(), "their children end", timeout=ENDED)
    wait_until(lambda: measure(pid)[0] < 14, "their descriptors are closed")
    assert read(ROOT, MANAGER, "Jobs") == 0
    assert daemon_pid() == pid


def test_much_in_one_message(container: Make) -> None:
    """Up to what the bus lets through, and as deep."""
    one = container(SLEEPER)
    path = path_of(one)
    deep: Variant = Variant("s", "bottom")
    for _ in range(60):
        deep = Variant("v", deep)
    many = {f"key{number}": Variant("s", "x") for number in range(100_000)}
    pid = daemon_pid()

    async def test() -> None:
        bus = await connect()
        for member, signature, body in (
            ("VerifyDefinition", "ssa{sv}", ("x", "#" * 60_000_000, {})),
            ("VerifyDefinition", "ssa{sv}", ("x", "a = [\n" * 200_000, {})),
            ("VerifyDefinition", "ssa{sv}", ("x" * 10_000_000, 'image = "x"\n', {})),
            ("Pull", "sa{sv}", ("x" * 20_000_000, {})),
            ("CreateContainer", "sa{sv}a{sv}", ("x", {"deep": deep}, {})),
            ("CreateContainer", "sa{sv}a{sv}", ("x", many, {})),
            ("ListContainers", "a{sv}", (many,)),
            ("GetContainer", "sa{sv}", ("/" * 10_000_000, {})),
        ):
            reply = await send(bus, ROOT, MANAGER, member, signature, *body, fds=[])
            assert reply.message_type is MessageType.ERROR or member == "VerifyDefinition", member
            assert len(str(reply.body)) < 20_000, member
        for command in (["true", *(["x" * 100] * 100_000)], ["x" * 3_000_000]):
            reader, writer = os.pipe()
            reply = await send(bus, path, CONTAINER, "Exec", "ashhha{sv}", command, 0, 0, 0, {}, fds=[reader])
            os.close(reader)
            os.close(writer)
            assert reply.error_name.startswith("org.usercontainer1.Error."), reply.body
        bus.disconnect()

    asyncio.run(test())
    assert daemon_pid() == pid
    assert read(ROOT, MANAGER, "Version")


def test_many_watchers(container: Make) -> None:
    one = container(SLEEPER)
    path = path_of(one)
    pid = daemon_pid()

    async def test() -> None:
        crowd = []
        for _ in range(100):
            bus = await connect()
            await bus.ask(NAME, ROOT, MANAGER, "Subscribe", "a{sv}", [{}])
            crowd.append(bus)
        assert count_watches() == 100
        async with watch() as watcher:
            await asyncio.to_thread(one.start)
            await watcher.wait_for(lambda: "running" in watcher.values(path, "State"), "it runs")
            for bus in crowd:
                bus.disconnect()

    asyncio.run(test())
    wait_until(lambda: not count_watches(), "nobody is watched any more")
    assert daemon_pid() == pid


def count_watches() -> int:
    """Match rules of the daemon's for clients: the bus tells them."""
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
    owner = json.loads(busctl("call", *bus, bus[0], "GetNameOwner", "s", NAME).stdout)["data"][0]
    rules = json.loads(busctl("call", *bus, f"{bus[0]}.Debug.Stats", "GetAllMatchRules").stdout)["data"][0]
    return sum("arg0=':" in rule for rule in rules[owner])


def test_systemd_executes_itself_anew(container: Make) -> None:
    """daemon-reexec drops all that systemd knew of who wants signals."""
    one = container(SLEEPER)
    path = path_of(one)
    one.start()
    wait_for(path, CONTAINER, "State", "running")
    pid = daemon_pid()

    async def test() -> None:
        async with watch() as watcher:
            await asyncio.to_thread(run, "systemctl", "--user", "daemon-reexec")
            await asyncio.to_thread(one.stop)
            await watcher.wait_for(lambda: watcher.values(path, "State")[-1:] == ["exited"], "it has stopped")
            await asyncio.to_thread(one.start)
            await watcher.wait_for(lambda: watcher.values(path, "State")[-1:] == ["running"], "it runs")

    asyncio.run(test())
    assert daemon_pid() == pid


def test_a_storm_of_reloads(container: Make) -> None:
    one = container(SLEEPER)
    path = path_of(one)
    pid = daemon_pid()
    for _ in range(15):
        run("systemctl", "--user", "daemon-reload")
        assert read(path, CONTAINER, "State") == "created"
    one.start()
    wait_for(path, CONTAINER, "State", "running")
    assert daemon_pid() == pid


def test_the_bus_starts_anew(container: Make) -> None:
    """The daemon ends without fuss, and the next call finds all as it is."""
    one = container(SLEEPER)
    path = path_of(one)
    one.start()
    before, init = daemon_pid(), one.pid
    started = time.time()
    # The bus may be started five times in ten seconds, and not at all after that: let this one be the first.
    run("systemctl", "--user", "reset-failed", "dbus.service")
    run("systemctl", "--user", "kill", "--signal=KILL", "dbus.service")
    # While there is no bus systemctl may fail, too.
    wait_until(lambda: not os.path.exists(f"/proc/{before}"), "it has ended")
    wait_until(lambda: busctl("list").returncode == 0, "there is a bus again")
    show = ("systemctl", "--user", "show", "-P", "Result", "usercontainerd")
    wait_until(lambda: run(*show, check=False).stdout == "success\n", "it ended well")
    assert read(path, CONTAINER, "MainPID") == init
    assert daemon_pid() not in (0, before)

    async def test() -> None:
        async with watch() as watcher:
            await asyncio.to_thread(one.stop)
            await watcher.wait_for(lambda: watcher.values(path, "State")[-1:] == ["exited"], "it has stopped")

    asyncio.run(test())
    words = ("-u", "usercontainerd", "-o", "cat", "--no-pager", f"--since=@{int(started)}")
    run("journalctl", "--user", "--sync", check=False)
    journal = run("journalctl", "--user", *words).stdout
    assert "the connection to the session bus has ended" in journal
    assert "Traceback" not in journal and "never retrieved" not in journal, journal[-2000:]


def test_the_store_vanishes_and_comes_back(container: Make) -> None:
    one = container(SLEEPER)
    path = path_of(one)
    one.start()
    store = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")) / "usercontainerd"
    aside = store.with_name("usercontainerd-aside")
    pid = daemon_pid()
    images = call_manager("ListImages", "a{sv}", "0")
    store.rename(aside)
    try:
        wait_until(lambda: call_manager("ListImages", "a{sv}", "0") == [[]], "there are no images")
        assert read(path, CONTAINER, "State") == "running"
    finally:
        if store.exists():
            shutil.rmtree(store)
        aside.rename(store)
    wait_until(lambda: call_manager("ListImages", "a{sv}", "0") == images, "they are there again")
    assert daemon_pid() == pid
