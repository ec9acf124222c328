"""The daemon on the user's real bus: started by the first call, true to what systemd and the disk say."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bus import (
    CONTAINER,
    IMAGE,
    JOB,
    MANAGER,
    NAME,
    ROOT,
    busctl,
    call,
    call_manager,
    finish_job,
    monitor,
    read,
    wait_for,
)
from tests.support.containers import BUSYBOX, Container, run, wait_until
from usercontainerd.daemon.connection import connect_bus

Make = Callable[..., Container]
SLEEPER = (
    f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "trap \'exit 0\' TERM; echo up; sleep 1000 & wait"]\n'
    'network = "none"\n'
)


def container_path(name: str) -> str:
    return str(call_manager("GetContainer", "sa{sv}", name, "0")[0])


pytestmark = pytest.mark.usefixtures("bus_image")


def main_pid() -> int:
    return int(run("systemctl", "--user", "show", "-P", "MainPID", "usercontainerd").stdout)


def test_the_first_call_starts_it() -> None:
    run("systemctl", "--user", "stop", "usercontainerd")
    assert read(ROOT, MANAGER, "Version")
    assert run("systemctl", "--user", "is-active", "usercontainerd").stdout == "active\n"


def test_introspection_is_what_is_shipped() -> None:
    text = json.loads(busctl("call", NAME, ROOT, "org.freedesktop.DBus.Introspectable", "Introspect").stdout)
    assert "org.usercontainer1.Manager" in text["data"][0]
    tree = busctl("tree", "--list", NAME).stdout
    assert f"{ROOT}/image/" in tree


def test_a_containers_life_on_the_bus(container: Make) -> None:
    one = container(SLEEPER)
    path = container_path(one.name)
    assert read(path, CONTAINER, "State") == "created"
    assert read(path, CONTAINER, "Image") == BUSYBOX
    call(path, CONTAINER, "Start", "a{sv}", "0")
    assert read(path, CONTAINER, "State") == "running"
    assert read(path, CONTAINER, "MainPID") == one.pid
    before = one.pid
    call(path, CONTAINER, "Restart", "a{sv}", "0")
    assert read(path, CONTAINER, "MainPID") == one.pid != before
    wait_until(lambda: one.journal().splitlines().count("up") == 2, "its shell listens to signals")
    call(path, CONTAINER, "Stop", "a{sv}", "1", "timeout", "d", "5")
    assert read(path, CONTAINER, "State") == "exited"
    assert read(path, CONTAINER, "ExitStatus") == 0
    assert read(path, CONTAINER, "LastError") == ""
    assert read(path, CONTAINER, "MainPID") == 0


def test_what_others_do_shows_by_itself(container: Make) -> None:
    one = container(SLEEPER)
    path = container_path(one.name)
    run("systemctl", "--user", "start", one.unit)
    wait_for(path, CONTAINER, "State", "running")
    os.kill(one.pid, signal.SIGKILL)
    wait_for(path, CONTAINER, "ExitStatus", 137)
    assert read(path, CONTAINER, "LastError") == "it was killed by signal 9"
    one.path.unlink()
    run("usercontainer", "rm", one.name)
    run("systemctl", "--user", "daemon-reload")
    wait_until(lambda: busctl("get-property", NAME, path, CONTAINER, "State").returncode, "the object goes")


def test_changes_are_signalled_within_moments(container: Make) -> None:
    one = container(SLEEPER)
    path = container_path(one.name)

    def list_states(messages: list[dict[str, Any]]) -> list[str]:
        changes = [
            message["payload"]["data"][1]
            for message in messages
            if message.get("member") == "PropertiesChanged" and message.get("path") == path
        ]
        return [change["State"]["data"] for change in changes if "State" in change]

    with monitor() as messages:
        one.start()
        wait_until(lambda: "running" in list_states(messages), "it is told to run")
        one.stop()
        wait_until(lambda: list_states(messages)[-1] == "exited", "it is told to have ended")


def test_pull_is_a_job(container: Make) -> None:
    run("usercontainer", "rmi", "-f", BUSYBOX, check=False)
    (job,) = call_manager("Pull", "sa{sv}", BUSYBOX, "0")
    found = finish_job(job)
    assert found["State"] == "done", found
    assert found["Progress"] == 1.0
    assert found["BytesDone"] == found["BytesTotal"] > 0
    (path,) = call_manager("GetImage", "sa{sv}", BUSYBOX, "0")
    assert read(path, IMAGE, "Id") == found["Result"]["image"]
    assert BUSYBOX in read(path, IMAGE, "Names")
    call(path, IMAGE, "Tag", "sa{sv}", "localhost/other:1", "0")
    assert "localhost/other:1" in read(path, IMAGE, "Names")
    call(path, IMAGE, "Untag", "sa{sv}", "localhost/other:1", "0")
    assert "localhost/other:1" not in read(path, IMAGE, "Names")


def test_a_job_has_the_notices_of_the_command_line() -> None:
    """A short name is resolved, and said to be."""
    registries = Path("~/.config/containers/registries.conf").expanduser()
    before = registries.read_bytes() if registries.exists() else None
    registries.parent.mkdir(parents=True, exist_ok=True)
    registries.write_text(
        '[[registry]]\nlocation = "localhost:5000"\ninsecure = true\n[aliases]\nlittle = "localhost:5000/busybox"\n'
    )
    try:
        (job,) = call_manager("Pull", "sa{sv}", "little", "0")
        found = finish_job(job)
        told = run("usercontainer", "pull", "little").stderr
    finally:
        registries.unlink() if before is None else registries.write_bytes(before)
    assert found["State"] == "done", found
    (notice,) = read(job, JOB, "Notices")
    assert notice.startswith("Resolved 'little' as an alias")
    assert notice in told


def test_the_last_failure_shows_while_systemd_starts_it_again(container: Make) -> None:
    again = 'network = "none"\nrestart = "always"\n[service]\nRestartSec = "2s"\nStartLimitBurst = "100"\n'
    one = container(f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "exit 7"]\n{again}')
    path = container_path(one.name)
    one.start(check=False)
    wait_for(path, CONTAINER, "State", "restarting")
    assert read(path, CONTAINER, "LastError") == "it ended with exit status 7"
    assert "Restarting (7)" in run("usercontainer", "ps", "-a").stdout
    one.stop()
    wait_for(path, CONTAINER, "State", "exited")
    other = container(f'image = "localhost:5000/nothing-here"\n{again}')
    path = container_path(other.name)
    other.start(check=False)
    wait_for(path, CONTAINER, "State", "restarting")
    failure = read(path, CONTAINER, "LastError")
    assert "the registry has no such image" in failure
    wait_for(path, CONTAINER, "State", "starting")
    assert read(path, CONTAINER, "LastError") == failure
    other.stop()


def test_a_job_that_fails_says_why() -> None:
    (job,) = call_manager("Pull", "sa{sv}", "localhost:5000/nothing-of-the-kind", "0")
    found = finish_job(job)
    assert found["State"] == "failed"
    assert found["ErrorName"] == "org.usercontainer1.Error.NoSuchImage"
    assert "nothing-of-the-kind" in found["Message"]
    assert read(job, JOB, "Operation") == "pull"


def test_definitions_come_over_the_bus(tmp_path: Path) -> None:
    text = 'image = "x"\nmemroy = "1G"\n'
    (found,) = call_manager("VerifyDefinition", "ssa{sv}", "app", text, "0")
    assert found[0][:4] == ["app.toml", 2, "memroy", "error"]
    refused = busctl("call", NAME, ROOT, MANAGER, "InstallDefinition", "ssa{sv}", "bus-made", text, "0")
    assert "memroy" in refused.stderr
    path, warnings = call_manager("InstallDefinition", "ssa{sv}", "bus-made", SLEEPER, "0")
    assert warnings == []
    assert read(path, CONTAINER, "State") == "created"
    again = busctl("call", NAME, ROOT, MANAGER, "InstallDefinition", "ssa{sv}", "bus-made", SLEEPER, "0")
    assert again.returncode != 0
    published = f'image = "{BUSYBOX}"\nports = ["127.0.0.1:8081:80", "[::1]:9000-9002:90-92/udp"]\n'
    call_manager("InstallDefinition", "ssa{sv}", "bus-made", published, "1", "replace", "b", "true")
    assert read(path, CONTAINER, "Ports") == [
        ["127.0.0.1", 8081, 80, 1, "tcp"],
        ["::1", 9000, 90, 3, "udp"],
    ]
    call_manager("RemoveDefinition", "sa{sv}", "bus-made", "0")
    assert busctl("get-property", NAME, path, CONTAINER, "State").returncode != 0


def test_one_defined_anew_is_another_container(container: Make) -> None:
    text = f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "exit 7"]\nnetwork = "none"\n'
    one = container(text)
    path = container_path(one.name)
    one.start(check=False)
    wait_for(path, CONTAINER, "ExitStatus", 7)
    one.define(text + "# edited\n")
    assert "Exited (7)" in run("usercontainer", "ps", "-a", "--filter", f"name={one.name}").stdout
    # A failure of its unit is forgotten, too.
    assert one.show("ActiveState") == "failed"
    call_manager("RemoveDefinition", "sa{sv}", one.name, "0")
    call_manager("InstallDefinition", "ssa{sv}", one.name, text, "0")
    assert read(path, CONTAINER, "State") == "created"
    assert read(path, CONTAINER, "ExitStatus") == -1
    assert "Created" in run("usercontainer", "ps", "-a", "--filter", f"name={one.name}").stdout


def test_killing_it_harms_nothing(container: Make) -> None:
    one = container(SLEEPER)
    path = container_path(one.name)
    call(path, CONTAINER, "Start", "a{sv}", "0")
    pid = one.pid
    os.kill(main_pid(), signal.SIGKILL)
    wait_until(lambda: main_pid() == 0, "the daemon is gone")
    assert one.pid == pid
    assert read(path, CONTAINER, "State") == "running"
    assert read(path, CONTAINER, "MainPID") == pid


def test_components_are_those_of_the_command() -> None:
    (components,) = call_manager("ListComponents", "a{sv}", "0")
    printed = json.loads(run("usercontainer", "version", "--format", "json").stdout)
    assert components == {each["Name"]: each["Version"] for each in printed["Components"]}
    assert set(components) == {"kernel", "python", "crun", "pasta", "systemd"}
    assert all(version[0].isdigit() for version in components.values())
    assert printed["Client"]["Version"] == read(ROOT, MANAGER, "Version")


def test_doctor_runs_in_a_process_of_its_own() -> None:
    (found,) = call_manager("Doctor", "a{sv}", "0")
    assert {each["name"] for each in found} >= {"kernel", "user namespaces", "subuid"}


def test_it_leaves_when_nobody_needs_it() -> None:
    run("systemctl", "--user", "stop", "usercontainerd")
    daemon = subprocess.Popen(["/usr/libexec/usercontainerd/usercontainerd", "--idle", "1"])
    try:
        assert daemon.wait(60) == 0
    finally:
        daemon.kill()


def test_no_call_is_lost_when_it_leaves() -> None:
    """Whoever calls in that very moment is answered: by the one that leaves, or by the next."""
    program = "/usr/libexec/usercontainerd/usercontainerd"
    drop_in = Path(os.environ["XDG_RUNTIME_DIR"]) / "systemd/user/usercontainerd.service.d/idle.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={program} --idle 0.05\n")
    run("systemctl", "--user", "stop", "usercontainerd")
    run("systemctl", "--user", "daemon-reload")
    rnd = random.Random(3)

    async def play() -> None:
        bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
        for _ in range(16):
            await bus.ask(NAME, ROOT, "org.freedesktop.DBus.Properties", "Get", "ss", [MANAGER, "Version"])
            await asyncio.sleep(rnd.uniform(0.045, 0.075))
        bus.disconnect()

    try:
        asyncio.run(asyncio.wait_for(play(), 200))
    finally:
        drop_in.unlink()
        run("systemctl", "--user", "stop", "usercontainerd")
        run("systemctl", "--user", "daemon-reload")


def test_a_container_made_on_the_bus() -> None:
    settings = [
        *("image", "s", BUSYBOX),
        *("command", "as", "2", "sleep", "1000"),
        *("network", "s", "none"),
        *("labels", "a{sv}", "1", "made-by", "s", "bus"),
    ]
    (path,) = call_manager("CreateContainer", "sa{sv}a{sv}", "", "4", *settings, "0")
    try:
        assert read(path, CONTAINER, "State") == "created"
        assert read(path, CONTAINER, "Labels") == {"made-by": "bus"}
        call(path, CONTAINER, "Start", "a{sv}", "0")
        assert read(path, CONTAINER, "State") == "running"
        refused = busctl("call", NAME, path, CONTAINER, "Remove", "a{sv}", "0")
        assert "runs" in refused.stderr
    finally:
        call(path, CONTAINER, "Remove", "a{sv}", "1", "force", "b", "true")
    assert busctl("get-property", NAME, path, CONTAINER, "State").returncode != 0
    bad = busctl(
        "call", NAME, ROOT, MANAGER, "CreateContainer", "sa{sv}a{sv}", "", "1", "imgae", "s", "x", "0"
    )
    assert "imgae" in bad.stderr


def test_check_and_prune_are_jobs() -> None:
    (job,) = call_manager("CheckStore", "a{sv}", "1", "quick", "b", "true")
    found = finish_job(job)
    assert found["State"] == "done", found
    assert found["Result"]["whole"] is True
    (job,) = call_manager("PruneImages", "a{sv}", "0")
    assert finish_job(job)["State"] == "done"


def test_events_and_reload(container: Make) -> None:
    one = container(SLEEPER)
    assert read(ROOT, MANAGER, "Version")
    run("systemctl", "--user", "reload", "usercontainerd")
    name = f"localhost/event-{os.urandom(3).hex()}:1"
    with monitor() as messages:

        def list_events() -> list[list[str]]:
            return [
                message["payload"]["data"][:3] for message in messages if message.get("member") == "Event"
            ]

        one.start()
        wait_until(lambda: ["container", "start", one.name] in list_events(), "it is told to have started")
        before = sum(kind == "image" for kind, *_ in list_events())
        run("usercontainer", "tag", BUSYBOX, name)
        wait_until(
            lambda: sum(kind == "image" for kind, *_ in list_events()) > before, "the new name is told"
        )
        run("usercontainer", "rmi", name)
        wait_until(lambda: sum(kind == "image" for kind, *_ in list_events()) > before + 1, "its end is told")
        one.stop()
        wait_until(lambda: ["container", "die", one.name] in list_events(), "its end is told")
