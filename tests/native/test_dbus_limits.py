"""One client calls without end: it is refused after a while, and nobody else notices."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

import pytest
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

from tests.support.bus import MANAGER, NAME, ROOT
from tests.support.containers import run
from usercontainerd.daemon.limits import CALL_BURST, MAX_CALLS

LIMIT_EXCEEDED = f"{NAME}.Error.LimitExceeded"


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
