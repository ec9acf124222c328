"""Changing what a container may, by the command and over D-Bus: definition, unit and systemd say the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bus import CONTAINER, busctl, call, path_of
from tests.support.containers import BUSYBOX, SLEEPER, Container, run

pytestmark = pytest.mark.usefixtures("bus_image")


def make(*options: str) -> Container:
    name = f"made-{os.urandom(3).hex()}"
    create = ("usercontainer", "create", "-q", "--name", name, "--network", "none", "--stop-timeout", "0")
    run(*create, *options, BUSYBOX, "sleep", "100000")
    return Container(name)


@pytest.fixture
def one() -> Iterator[Container]:
    made = make("-m", "64m")
    try:
        yield made
    finally:
        run("usercontainer", "rm", "-f", made.name)


def cat(one: Container) -> list[str]:
    return run("systemctl", "--user", "cat", one.unit).stdout.splitlines()


def definition(one: Container) -> Path:
    return Path(
        run("usercontainer", "inspect", "-f", "{{index .Definition.Sources 0}}", one.name).stdout.strip()
    )


def test_one_that_does_not_run(one: Container) -> None:
    created = run("usercontainer", "inspect", "-f", "{{.Created}}", one.name).stdout
    assert run("usercontainer", "update", "-m", "32m", "--cpus", "0.25", one.name).stdout == f"{one.name}\n"
    assert {"MemoryMax=32M", "CPUQuota=25%"} <= {*cat(one)}
    assert 'memory = "32M"' in definition(one).read_text()
    assert run("usercontainer", "inspect", "-f", "{{.Created}}", one.name).stdout == created
    run("usercontainer", "start", one.name)
    assert one.show("MemoryMax") == str(32 << 20)
    assert one.show("NeedDaemonReload") == "no"


def test_the_unit_is_the_generators(one: Container) -> None:
    """Which makes it at every start of systemd: after a reboot it is the same."""
    run("usercontainer", "start", one.name)
    pid = one.pid
    run("usercontainer", "update", "-m", "48m", "--restart", "always", one.name)
    assert "/systemd/generator/" in one.show("FragmentPath")
    before = cat(one)
    assert {"MemoryMax=48M", "Restart=always", "WantedBy=default.target"} <= {*before}
    run("systemctl", "--user", "daemon-reload")
    assert cat(one) == before
    assert one.pid == pid


def test_a_policy(one: Container) -> None:
    run("usercontainer", "start", one.name)
    run("usercontainer", "update", "--restart", "always", one.name)
    assert (one.show("Restart"), one.show("RestartUSec"), one.show("WantedBy")) == (
        *("always", "100ms"),
        "default.target",
    )
    pid = one.pid
    run("usercontainer", "exec", one.name, "kill", "-TERM", "1")  # without a handler: nothing happens
    run("usercontainer", "update", "--restart", "on-failure:2", one.name)
    assert (one.show("Restart"), one.show("StartLimitBurst"), one.show("WantedBy")) == ("on-failure", "3", "")
    run("usercontainer", "update", "--restart", "no", one.name)
    assert (one.show("Restart"), one.show("WantedBy")) == ("no", "")
    assert one.pid == pid
    assert "Restart" not in definition(one).read_text()


def test_one_that_goes_when_it_has_ended_is_not_restarted() -> None:
    name = f"made-{os.urandom(3).hex()}"
    run("usercontainer", "run", "-d", "--rm", "--name", name, "--network", "none", BUSYBOX, "sleep", "1000")
    try:
        refused = run("usercontainer", "update", "--restart", "always", name, check=False)
        assert refused.returncode == 125
        assert "cannot be started again" in refused.stderr
        run("usercontainer", "update", "--pids-limit", "99", name)
        assert Container(name).show("TasksMax") == "99"
    finally:
        run("usercontainer", "rm", "-f", name)


def test_a_definition_of_the_users_is_left_alone(container: Callable[..., Container]) -> None:
    one = container(SLEEPER)
    text = definition(one).read_text()
    refused = run("usercontainer", "update", "-m", "64m", "--restart", "no", one.name, check=False)
    assert refused.returncode == 125
    for part in (str(definition(one)), "resources.memory, restart", f"{one.name}.toml.d/limits.toml"):
        assert part in refused.stderr
    assert definition(one).read_text() == text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--memory", "lots"], "--memory"),
        (["--memory-swap", "1m"], "counts memory"),
        (["--cpus", "-1"], "--cpus"),
        (["--cpuset-cpus", "0"], "not possible yet"),
        ([], "nothing to change"),
    ],
)
def test_what_cannot_be(one: Container, words: list[str], reason: str) -> None:
    before = definition(one).read_text()
    refused = run("usercontainer", "update", *words, one.name, check=False)
    assert refused.returncode == 125
    assert reason in refused.stderr
    assert definition(one).read_text() == before


def test_over_the_bus(one: Container) -> None:
    run("usercontainer", "start", one.name)
    path = path_of(one)
    settings = ("2", "restart", "s", "on-failure", "resources", "a{sv}")
    resources = ("2", "memory", "s", "40M", "pids", "u", "33")
    call(path, CONTAINER, "Update", "a{sv}a{sv}", *settings, *resources, "0")
    assert (one.show("MemoryMax"), one.show("TasksMax")) == (str(40 << 20), "33")
    assert one.show("Restart") == "on-failure"
    call(path, CONTAINER, "Update", "a{sv}a{sv}", "0", "1", "unlimited", "as", "1", "memory")
    assert one.show("MemoryMax") == "infinity"
    for words in (
        ("1", "image", "s", "other", "0"),
        ("1", "service", "a{sv}", "1", "ExecStartPre", "s", "/bin/true", "0"),
        ("1", "resources", "s", "all", "0"),
        ("0", "1", "unlimited", "as", "1", "everything"),
        ("0", "0"),
    ):
        refused = busctl("call", "org.usercontainer1", path, CONTAINER, "Update", "a{sv}a{sv}", *words)
        assert refused.returncode != 0, words
        assert "traceback" not in refused.stderr.lower()
    assert "ExecStartPre" not in definition(one).read_text()
