"""What watchers are told: each change once it is true, whoever made it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from tests.support.bus import CONTAINER, MANAGER, NAME, ROOT, path_of, read
from tests.support.containers import SLEEPER, Container, run
from tests.support.watching import watch
from usercontainerd.daemon.board import PROPERTIES
from usercontainerd.daemon.connection import connect_bus
from usercontainerd.systemd.bus import escape_object_path

Make = Callable[..., Container]


pytestmark = pytest.mark.usefixtures("bus_image")


def restart_with_systemctl(one: Container) -> None:
    run("systemctl", "--user", "restart", one.unit)


def restart_with_command(one: Container) -> None:
    run("usercontainer", "restart", one.name)


def kill_init(one: Container) -> None:
    os.kill(one.pid, signal.SIGKILL)


@pytest.mark.parametrize("restart", [restart_with_systemctl, restart_with_command, kill_init])
def test_a_restart_tells_the_new_process(container: Make, restart: Callable[[Container], None]) -> None:
    """Whoever restarts it: systemd by its policy after a kill, a command, systemctl."""
    one = container(f'{SLEEPER}restart = "always"\n[service]\nRestartSec = "100ms"\n')
    path = path_of(one)
    one.start()
    before = one.pid

    async def observe() -> None:
        async with watch() as watcher:
            await asyncio.to_thread(restart, one)

            def is_told() -> bool:
                pids = [pid for pid in watcher.values(path, "MainPID") if pid]
                return bool(pids) and pids[-1] == one.pid != before

            await watcher.wait_for(is_told, f"a main process that is not {before}")

            def is_true() -> bool:
                return all(
                    watcher.values(path, name)[-1:] in ([], [read(path, CONTAINER, name)])
                    for name in ("MainPID", "State", "StartedAt")
                )

            # It may still be starting; in the end what clients put together from the signals is what is true.
            await watcher.wait_for(is_true, "what was told is what can be read")

    asyncio.run(observe())


def test_what_came_this_moment_is_there(container: Make) -> None:
    """Who has just made a container may ask for it by its path, which is its name's."""

    async def observe() -> None:
        bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
        await bus.ask(NAME, ROOT, MANAGER, "ListContainers", "a{sv}", [{}])  # the daemon runs
        for _ in range(5):
            one = container(SLEEPER)
            path = f"/org/usercontainer1/container/{escape_object_path(one.name)}"
            (answer,) = await bus.ask(NAME, path, PROPERTIES, "Get", "ss", [CONTAINER, "Name"])
            assert answer.value == one.name
        bus.disconnect()

    asyncio.run(observe())


def test_of_restarts_in_a_row_the_last_is_told_last(container: Make) -> None:
    """Faster than anybody looks: what was told last is what is there in the end."""
    one = container(f"{SLEEPER}[unit]\nStartLimitBurst = 100\n")
    path = path_of(one)
    one.start()

    async def observe() -> None:
        async with watch() as watcher:
            for _ in range(8):
                await asyncio.to_thread(restart_with_systemctl, one)
            await watcher.wait_for(
                lambda: watcher.values(path, "MainPID")[-1:] == [one.pid], "the last of the processes"
            )

    asyncio.run(observe())
