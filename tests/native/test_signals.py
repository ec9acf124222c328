"""Signals for containers, and containers that stand still: by the command, by systemctl, over the bus."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.support.bus import CONTAINER, NAME, call, path_of, read
from tests.support.containers import BUSYBOX, SLEEPER, Container, defined, run, wait_until
from tests.support.watching import watch
from usercontainerd.daemon.connection import RemoteError, connect_bus

Make = Callable[..., Container]

pytestmark = pytest.mark.usefixtures("bus_image")

# Two signals that it has handlers for; the numbers tell which one came.
SERVER = (
    f'image = "{BUSYBOX}"\nnetwork = "none"\nstop_timeout = 30\n'
    "command = [\"sh\", \"-c\", '''trap 'exit 3' TERM; trap 'exit 5' USR1; while :; do sleep 0.05; done''']\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Container]:
    with defined("server", SERVER) as one:
        one.start()
        yield one


def is_frozen(one: Container) -> bool:
    return "frozen 1" in (one.cgroup / "container/cgroup.events").read_text()


def show_states(name: str) -> tuple[str, str, bool]:
    """What `ps` and `inspect` say of it."""
    listed = run("usercontainer", "ps", "--filter=status=paused", "--format={{.Names}} {{.Status}}").stdout
    state = json.loads(run("usercontainer", "inspect", name).stdout)[0]["State"]
    return listed.strip(), state["Status"], state["Paused"]


def refuse(*words: str) -> str:
    """A command that fails with docker's status of a refusal; returns why."""
    done = run("usercontainer", *words, check=False)
    assert done.returncode == 125, done
    return done.stderr


def exit_status(one: Container) -> str:
    return run("usercontainer", "inspect", "--format={{.State.ExitCode}}", one.name).stdout.strip()


def test_a_paused_container_stands_still(server: Container) -> None:
    assert run("usercontainer", "pause", server.name).stdout == f"{server.name}\n"
    assert is_frozen(server)
    assert show_states(server.name) == (f"{server.name} Paused", "paused", True)
    assert server.show("FreezerState") == "running", "systemd itself is free to act on the unit"
    for verb in ("exec", "start", "pause"):
        words = (server.name, "true") if verb == "exec" else (server.name,)
        assert f"is paused (usercontainer unpause {server.name})" in refuse(verb, *words)
    assert run("usercontainer", "unpause", "--all").stdout == f"{server.name}\n"
    assert not is_frozen(server)
    assert show_states(server.name) == ("", "running", False)
    assert "is not paused" in refuse("unpause", server.name)
    run("usercontainer", "exec", server.name, "true")


def test_what_systemctl_froze_is_paused_too(server: Container) -> None:
    run("systemctl", "--user", "freeze", server.unit)
    assert show_states(server.name) == (f"{server.name} Paused", "paused", True)
    run("usercontainer", "unpause", server.name)
    assert (server.show("FreezerState"), is_frozen(server)) == ("running", False)


def test_watchers_are_told_whoever_pauses(server: Container) -> None:
    path = path_of(server)

    async def observe() -> None:
        async with watch() as watcher:
            for act, state in (
                (("usercontainer", "pause", server.name), "paused"),
                (("usercontainer", "unpause", server.name), "running"),
                (("systemctl", "--user", "freeze", server.unit), "paused"),
                (("systemctl", "--user", "thaw", server.unit), "running"),
            ):
                await asyncio.to_thread(run, *act)

                def is_told(wanted: str = state) -> bool:
                    return watcher.values(path, "State")[-1:] == [wanted]

                await watcher.wait_for(is_told, state)

    asyncio.run(observe())


async def list_errors(path: str) -> list[str]:
    """The names of the errors of calls that a paused container refuses."""
    bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
    names = []
    try:
        for member, *words in (("Pause",), ("Start",), ("Kill", "FOO")):
            with pytest.raises(RemoteError) as failure:
                await bus.ask(NAME, path, CONTAINER, member, "s" * len(words) + "a{sv}", [*words, {}])
            names.append(failure.value.dbus_name.removeprefix(f"{NAME}.Error."))
    finally:
        bus.disconnect()
    return names


def test_over_the_bus(container: Make) -> None:
    one = container(SERVER)
    one.start()
    path = path_of(one)
    call(path, CONTAINER, "Pause", "a{sv}", "0")
    assert (read(path, CONTAINER, "State"), is_frozen(one)) == ("paused", True)
    assert asyncio.run(list_errors(path)) == ["Paused", "Paused", "InvalidArgument"]
    call(path, CONTAINER, "Resume", "a{sv}", "0")
    assert read(path, CONTAINER, "State") == "running"
    call(path, CONTAINER, "Kill", "sa{sv}", "KILL", "0")
    assert (read(path, CONTAINER, "State"), read(path, CONTAINER, "ExitStatus")) == ("exited", 137)


def test_a_paused_container_stops_in_its_own_way(container: Make) -> None:
    """Frozen by us or by systemd: the handler of its stop signal has run."""
    for freeze in (("usercontainer", "pause"), ("systemctl", "--user", "freeze")):
        one = container(SERVER)
        one.start()
        run(*freeze, one.name if freeze[0] == "usercontainer" else one.unit)
        run("usercontainer", "stop", one.name, timeout=25)
        assert exit_status(one) == "3"


@pytest.mark.parametrize("freeze", ["pause", "freeze"])
def test_a_paused_container_is_killed(container: Make, freeze: str) -> None:
    """No restart policy brings it back, and systemd answers after that."""
    one = container(f'{SLEEPER}restart = "always"\n[service]\nRestartSec = "10ms"\n')
    one.start()
    if freeze == "pause":
        run("usercontainer", "pause", one.name)
    else:
        run("systemctl", "--user", "freeze", one.unit)
    assert run("usercontainer", "kill", one.name).stdout == f"{one.name}\n"
    assert one.has_ended
    assert exit_status(one) == "137"
    assert run("systemctl", "--user", "is-system-running", check=False).stdout.strip() in (
        "running",
        "degraded",
    )


def test_whoever_kills_a_paused_one_from_outside_finds_it_ended(container: Make) -> None:
    """With a copier, which has to go on: what it has in hand would be lost."""
    one = container(f'{SLEEPER}output = "pipe"\n')
    one.start()
    run("usercontainer", "pause", one.name)
    os.kill(one.pid, 9)
    wait_until(lambda: one.has_ended, "it has ended")
    assert exit_status(one) == "137"
    one.start()
    assert not is_frozen(one)


def test_signals_reach_the_first_process(container: Make) -> None:
    one = container(f'{SERVER}user = "1000:1000"\n')
    assert f"{one.name}: the container does not run" in refuse("kill", one.name)
    one.start()
    assert 'there is no signal "FOO"' in refuse("kill", "-s", "FOO", one.name)
    run("usercontainer", "kill", "--signal=WINCH", one.name)  # it has no handler: nothing happens
    assert one.pid
    run("usercontainer", "kill", "-s", "SIGUSR1", one.name)
    wait_until(lambda: one.has_ended, "it has ended")
    assert exit_status(one) == "5"


def test_a_paused_container_is_removed() -> None:
    name = f"gone-{os.urandom(3).hex()}"
    run("usercontainer", "create", "--name", name, "--network=none", BUSYBOX, "sleep", "1000")
    run("usercontainer", "start", name)
    run("usercontainer", "pause", name)
    assert "the container runs" in refuse("rm", name)
    run("usercontainer", "rm", "--force", name)
    assert run("usercontainer", "container", "exists", name, check=False).returncode == 1
