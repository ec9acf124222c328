"""Clients that call without end or hold what they can: they are refused after a while, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator

import pytest
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

from tests.support.bus import JOB, MANAGER, NAME, ROOT, busctl, call_manager
from tests.support.busfuzz import MAX_FDS, daemon_pid
from tests.support.containers import run, wait_until
from usercontainerd.daemon.connection import connect_bus
from usercontainerd.daemon.jobs import KEPT
from usercontainerd.daemon.limits import (
    CALL_BURST,
    MAX_CALL_BYTES,
    MAX_CALLS,
    MAX_ENDED_JOBS_OF_ONE,
    MAX_PROGRAMS,
    MAX_PROGRAMS_OF_ONE,
)

LIMIT_EXCEEDED = f"{NAME}.Error.LimitExceeded"


pytestmark = pytest.mark.usefixtures("no_logins")


@pytest.fixture(autouse=True)
def fresh_daemon() -> Iterator[None]:
    run("systemctl", "--user", "stop", "usercontainerd")
    yield
    run("systemctl", "--user", "stop", "usercontainerd")


async def get_version(bus: MessageBus) -> str:
    """Make one call; return the error's name, empty for none."""
    properties = "org.freedesktop.DBus.Properties"
    reply = await bus.call(Message(NAME, ROOT, properties, "Get", signature="ss", body=[MANAGER, "Version"]))
    assert reply is not None
    return reply.error_name if reply.message_type is MessageType.ERROR else ""


class Flooder:
    """A client that always has some calls under way; counts how many are answered and how many refused."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.answered = 0
        self.refused = 0

    async def flood(self) -> None:
        await asyncio.gather(*(self._call() for _ in range(MAX_CALLS // 2)))

    async def _call(self) -> None:
        while True:
            error = await get_version(self.bus)
            assert error in ("", LIMIT_EXCEEDED)
            self.answered += not error
            self.refused += bool(error)


async def measure(bus: MessageBus, count: int) -> list[float]:
    """Milliseconds of calls one after the other, each of which must succeed."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        assert await get_version(bus) == ""
        times.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.02)
    return times


def test_one_who_calls_without_end_is_refused_and_nobody_else() -> None:
    async def play() -> None:
        noisy, quiet = await MessageBus().connect(), await MessageBus().connect()
        before = await measure(quiet, 50)
        flooder = Flooder(noisy)
        task = asyncio.create_task(flooder.flood())
        while not flooder.refused and not task.done():
            await asyncio.sleep(0.05)
        during = await measure(quiet, 100)
        assert not task.done()
        task.cancel()
        noisy.disconnect()
        after = await measure(quiet, 50)
        for what, times in (("before", before), ("during", during), ("after", after)):
            print(f"{what}: median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms")
        print(f"{flooder.answered} answered, {flooder.refused} refused")
        assert flooder.answered >= CALL_BURST
        # A new connection is a new client.
        fresh = await MessageBus().connect()
        assert await get_version(fresh) == ""
        for bus in (quiet, fresh):
            bus.disconnect()

    asyncio.run(play())


def test_a_thousand_calls_in_a_row_are_no_flood() -> None:
    async def play() -> None:
        bus = await MessageBus().connect()
        assert {await get_version(bus) for _ in range(1000)} == {""}
        bus.disconnect()

    asyncio.run(play())


def read_peak(pid: int) -> int:
    """The most memory that a process ever had, in MiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM:"))


def test_what_is_much_too_long_is_never_in_memory() -> None:
    """A hundred megabytes in a message, many messages, and messages of very many small values."""

    async def verify(bus: MessageBus, text: str) -> str:
        message = Message(NAME, ROOT, MANAGER, "VerifyDefinition", signature="ssa{sv}", body=["x", text, {}])
        reply = await bus.call(message)
        assert reply is not None
        return reply.error_name if reply.message_type is MessageType.ERROR else ""

    async def send_numbers(bus: MessageBus, count: int) -> str:
        message = Message(NAME, ROOT, MANAGER, "Reload", signature="ai", body=[[0] * count])
        reply = await bus.call(message)
        assert reply is not None and reply.message_type is MessageType.ERROR
        return str(reply.error_name)

    async def play() -> None:
        noisy, quiet = await MessageBus().connect(), await MessageBus().connect()
        pid = daemon_pid()
        before = read_peak(pid)
        assert await verify(noisy, "#" * 100_000_000) == LIMIT_EXCEEDED
        text = "#" * (8 * MAX_CALL_BYTES)
        assert await asyncio.gather(*(verify(noisy, text) for _ in range(20))) == [LIMIT_EXCEEDED] * 20
        assert await send_numbers(noisy, MAX_CALL_BYTES // 5) == LIMIT_EXCEEDED
        assert await get_version(noisy) == "" == await get_version(quiet)
        assert await verify(noisy, "#" * (MAX_CALL_BYTES // 2)) == ""
        assert daemon_pid() == pid
        print(f"peak: {before} MiB, then {read_peak(pid)} MiB")
        assert read_peak(pid) - before < 60
        for bus in (noisy, quiet):
            bus.disconnect()

    assert busctl("call", NAME, ROOT, "org.freedesktop.DBus.Peer", "Ping").returncode == 0
    asyncio.run(asyncio.wait_for(play(), 120))


async def log_in(bus: MessageBus, fds: list[int]) -> str:
    """Call Login with the password on the first descriptor; return the error's name, empty for none."""
    body = ["localhost:5000", "ann", 0, {}]
    message = Message(NAME, ROOT, MANAGER, "Login", signature="ssha{sv}", body=body, unix_fds=fds)
    reply = await bus.call(message)
    assert reply is not None
    return reply.error_name if reply.message_type is MessageType.ERROR else ""


def programs_underway() -> int:
    return int(run("pgrep", "-fc", '"operation": "login"', check=False).stdout)


async def wait_for_programs(count: int) -> None:
    await asyncio.to_thread(wait_until, lambda: programs_underway() == count, f"{count} wait for passwords")


def list_fds(pid: int) -> list[str]:
    """What its descriptors are."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass  # closed meanwhile
    return sorted(found)


HOSTILE = 6


def test_many_descriptors_of_many_clients() -> None:
    """Each wants as many logins under way as it may have calls, with all descriptors that the bus lets through."""

    async def play(count: int, fds_before: int) -> None:
        reader, writer = os.pipe()
        buses = [await MessageBus(negotiate_unix_fd=True).connect() for _ in range(count + 1)]
        good = buses.pop()
        waiting = [
            asyncio.create_task(log_in(bus, [reader] * MAX_FDS))
            for bus in buses
            for _ in range(MAX_PROGRAMS_OF_ONE)
        ]

        async def go_on(bus: MessageBus) -> set[str]:
            # One after the other: the kernel lets a user have no more than 1024 on their way (unix(7), ETOOMANYREFS).
            return {await log_in(bus, [reader] * MAX_FDS) for _ in range(MAX_CALLS)}

        refused = await asyncio.gather(*(go_on(bus) for bus in buses))
        assert refused == [{LIMIT_EXCEEDED}] * count
        await wait_for_programs(count * MAX_PROGRAMS_OF_ONE)
        # Two for each child, one for its password; hundreds, were all descriptors kept.
        assert len(list_fds(daemon_pid())) - fds_before <= count * MAX_PROGRAMS_OF_ONE * 3 + 10
        assert not any(task.done() for task in waiting)
        assert await get_version(good) == ""
        password, end = os.pipe()
        os.write(end, b"secret\n")
        os.close(end)
        assert await log_in(good, [password]) == ""
        os.close(password)
        for bus in buses:
            bus.disconnect()
        await wait_for_programs(0)
        for task in waiting:
            task.cancel()
        assert await get_version(good) == ""
        good.disconnect()
        os.close(reader)
        os.close(writer)

    # Once before: its first messages make the daemon connect to the journal, but not at once.
    asyncio.run(asyncio.wait_for(play(1, 30), 120))
    pid = daemon_pid()
    journal = ("journalctl", "--user", f"_PID={pid}", "-o", "cat")
    wait_until(lambda: "refused a call" in run(*journal).stdout, "the daemon's messages are in the journal")
    at_start = list_fds(pid)
    asyncio.run(asyncio.wait_for(play(HOSTILE, len(at_start)), 120))
    assert daemon_pid() == pid
    try:
        wait_until(
            lambda: len(list_fds(pid)) <= len(at_start), "the daemon has as many descriptors as at first"
        )
    except pytest.fail.Exception:
        print("at first:", *at_start, "\nnow:", *list_fds(pid), sep="\n")
        raise


def test_programs_of_all_clients_are_limited() -> None:
    """Who comes when all are taken hears so, and what needs no program is served."""

    async def play() -> None:
        reader, writer = os.pipe()
        count = MAX_PROGRAMS // MAX_PROGRAMS_OF_ONE + 1
        buses = [await MessageBus(negotiate_unix_fd=True).connect() for _ in range(count)]
        waiting = [
            asyncio.create_task(log_in(bus, [reader]))
            for bus in buses[1:]
            for _ in range(MAX_PROGRAMS_OF_ONE)
        ]
        await wait_for_programs(MAX_PROGRAMS)
        assert await log_in(buses[0], [reader]) == LIMIT_EXCEEDED
        assert await get_version(buses[0]) == ""
        for bus in buses:
            bus.disconnect()
        for task in waiting:
            task.cancel()
        os.close(reader)
        os.close(writer)
        await wait_for_programs(0)

    asyncio.run(asyncio.wait_for(play(), 120))


def test_children_have_the_limit_that_is_usual() -> None:
    """Only the daemon itself has more descriptors."""

    def read_soft_limit(process: int | str) -> int:
        with open(f"/proc/{process}/limits", encoding="ascii") as file:
            return next(int(line.split()[3]) for line in file if line.startswith("Max open files"))

    async def play() -> None:
        reader, writer = os.pipe()
        bus = await MessageBus(negotiate_unix_fd=True).connect()
        waiting = asyncio.create_task(log_in(bus, [reader]))
        await wait_for_programs(1)
        child = run("pgrep", "-f", '"operation": "login"').stdout.strip()
        usual = run("systemctl", "--user", "show", "-P", "LimitNOFILESoft", "usercontainerd").stdout
        assert read_soft_limit(child) == int(usual)
        assert read_soft_limit(daemon_pid()) > int(usual)
        bus.disconnect()
        waiting.cancel()
        os.close(reader)
        os.close(writer)

    asyncio.run(asyncio.wait_for(play(), 60))


def test_ended_jobs_of_one_who_makes_many_go_early() -> None:
    """The oldest of its own, and none of another's."""
    began = time.monotonic()
    (others,) = call_manager("Pull", "sa{sv}", "localhost:1/none", "0")

    async def play() -> list[str]:
        bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
        made = []
        for _ in range(MAX_ENDED_JOBS_OF_ONE + 3):
            (job,) = await bus.ask(NAME, ROOT, MANAGER, "Pull", "sa{sv}", ["Not A Name", {}])
            made.append(str(job))
            properties = "org.freedesktop.DBus.Properties"
            while (await bus.ask(NAME, job, properties, "Get", "ss", [JOB, "State"]))[0].value == "running":
                await asyncio.sleep(0.01)
        bus.disconnect()
        return made

    made = asyncio.run(asyncio.wait_for(play(), 200))

    def list_jobs() -> set[str]:
        tree = busctl("tree", "--list", NAME).stdout.split()
        return {path for path in tree if path.rpartition("/")[0] == f"{ROOT}/job"}

    # A job says what has come of it when its process is just about to end.
    wait_until(lambda: not list_jobs() & set(made[:3]), "the oldest three are gone")
    there = list_jobs()
    if time.monotonic() - began < KEPT:
        assert there == {others, *made[3:]}
    assert made[-1] in there
