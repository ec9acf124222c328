"""Starting with the session or not: the command, the bus, the definition and systemd say the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.support.bus import CONTAINER, busctl, call, call_manager, path_of, read, wait_for
from tests.support.containers import BUSYBOX, SLEEPER, Container, run

Make = Callable[..., Container]
WANTED = f'{SLEEPER}[install]\nwanted_by = ["default.target"]\n'


pytestmark = pytest.mark.usefixtures("bus_image")


def is_wanted(one: Container) -> bool:
    """systemd's word."""
    return "default.target" in one.show("WantedBy").split()


def assert_all_say(one: Container, wanted: bool) -> None:
    assert is_wanted(one) == wanted
    assert read(path_of(one), CONTAINER, "Autostart") == wanted
    assert ("WantedBy=default.target" in run("systemctl", "--user", "cat", one.unit).stdout) == wanted


def test_systemd_refuses_generated_units(container: Make) -> None:
    """Why there are verbs of ours. Should systemd allow it one day, this fails."""
    one = container(SLEEPER)
    refused = run("systemctl", "--user", "enable", one.unit, check=False)
    assert "is transient or generated" in refused.stderr
    assert run("systemctl", "--user", "is-enabled", one.unit).stdout == "generated\n"


def test_by_the_command(container: Make) -> None:
    one = container(SLEEPER)
    assert_all_say(one, False)
    done = run("usercontainer", "enable", "--now", one.name)
    assert done.stdout == f"{one.name}\n"
    assert one.show("ActiveState") == "active"
    assert_all_say(one, True)
    run("usercontainer", "disable", "--now", one.name)
    assert one.show("ActiveState") == "inactive"
    assert_all_say(one, False)


def test_over_the_bus(container: Make) -> None:
    one = container(WANTED)
    path = path_of(one)
    assert_all_say(one, True)
    call(path, CONTAINER, "SetAutostart", "ba{sv}", "false", "0")
    assert_all_say(one, False)
    call(path, CONTAINER, "SetAutostart", "ba{sv}", "true", "0")
    assert_all_say(one, True)
    call(path, CONTAINER, "SetAutostart", "ba{sv}", "true", "1", "target", "s", "timers.target")
    assert sorted(one.show("WantedBy").split()) == ["default.target", "timers.target"]
    refused = busctl(
        "call",
        "org.usercontainer1",
        path,
        CONTAINER,
        "SetAutostart",
        "ba{sv}",
        "true",
        "1",
        "target",
        "s",
        "x",
    )
    assert "not the name of a unit" in refused.stderr
    call(path, CONTAINER, "SetAutostart", "ba{sv}", "false", "0")
    one.path.with_suffix(".toml.d").joinpath("99-autostart.toml").unlink()


def test_others_changes_are_signalled(container: Make) -> None:
    one = container(SLEEPER)
    path = path_of(one)
    with subprocess.Popen(
        ["gdbus", "monitor", "--session", "--dest", "org.usercontainer1", "--object-path", path]
        if run("sh", "-c", "command -v gdbus", check=False).returncode == 0
        else ["busctl", "--user", "monitor", "org.usercontainer1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as monitor:
        assert monitor.stdout is not None
        call_manager("Subscribe", "a{sv}", "0")
        run("usercontainer", "enable", one.name)
        for line in monitor.stdout:
            if "Autostart" in line:
                break
        monitor.terminate()
    run("usercontainer", "disable", one.name)
    wait_for(path, CONTAINER, "Autostart", False)


def test_a_definition_that_is_taken_back_takes_the_choice_along(container: Make) -> None:
    one = container(SLEEPER)
    run("usercontainer", "enable", one.name)
    drop_in = one.path.with_suffix(".toml.d") / "99-autostart.toml"
    assert drop_in.exists()
    call_manager("RemoveDefinition", "sa{sv}", one.name, "0")
    assert not drop_in.parent.exists()


def test_one_that_was_created() -> None:
    run("usercontainer", "create", "--name", "made", "--network", "none", BUSYBOX, "sleep", "1000")
    one = Container("made")
    try:
        run("usercontainer", "enable", "made")
        assert is_wanted(one)
        assert "WantedBy=default.target" in run("systemctl", "--user", "cat", one.unit).stdout
    finally:
        run("usercontainer", "rm", "--force", "made")
    assert not one.path.with_suffix(".toml.d").exists()
    assert not is_wanted(one)


def test_restart_always_is_enabled_and_can_be_disabled() -> None:
    words = ("--name", "again", "--restart", "always", "--network", "none", BUSYBOX, "sleep", "1000")
    run("usercontainer", "create", *words)
    one = Container("again")
    try:
        run("systemctl", "--user", "daemon-reload")
        assert is_wanted(one)
        run("usercontainer", "disable", "again")
        assert not is_wanted(one)
    finally:
        run("usercontainer", "rm", "--force", "again")
