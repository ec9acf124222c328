"""The client against the real user manager."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from usercontainerd.base.errors import SystemdError
from usercontainerd.systemd.bus import Bus
from usercontainerd.systemd.manager import NAME, SERVICE, UNIT, Manager, UnitFailure
from usercontainerd.systemd.wire import Variant


class WriteUnit(Protocol):
    def __call__(self, name: str, text: str) -> str: ...


RUNTIME = os.environ["XDG_RUNTIME_DIR"]


@pytest.fixture(params=["private", "bus"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    if request.param == "private":
        one = Manager.connect(RUNTIME)
    else:
        bus = Bus.connect(os.environ["DBUS_SESSION_BUS_ADDRESS"])
        bus.match(f"type='signal',sender='{NAME}'")
        one = Manager(bus)
    with one:
        yield one


@pytest.fixture
def write_unit(manager: Manager) -> Iterator[WriteUnit]:
    """Write units that are removed in the end."""
    written: list[Path] = []

    def write(name: str, text: str) -> str:
        path = Path(RUNTIME, "systemd/user", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
        return name

    yield write
    for path in written:
        path.unlink()
        subprocess.run(["systemctl", "--user", "stop", "--quiet", path.name], check=False)
        manager.reset_failed(path.name)
    manager.reload()


def test_start_stop_restart(manager: Manager, write_unit: WriteUnit) -> None:
    name = write_unit("test-plain.service", "[Service]\nExecStart=/bin/sleep 100\n")
    manager.start_unit(name)
    first = manager.unit_properties(name)
    assert (first["ActiveState"], first["SubState"], first["Id"]) == ("active", "running", name)
    manager.restart_unit(name)
    assert manager.unit_properties(name)["MainPID"] not in (0, first["MainPID"])
    (listed,) = manager.list_units("test-plain.*")
    assert (listed.name, listed.active, listed.sub, listed.load) == (name, "active", "running", "loaded")
    manager.stop_unit(name)
    assert manager.get_properties(
        [(name, UNIT, "ActiveState"), (name, SERVICE, "MainPID"), (name, UNIT, "No")]
    ) == [
        "inactive",
        0,
        None,
    ]


def test_properties_as_systemctl_has_them(manager: Manager) -> None:
    properties = manager.unit_properties("init.scope")
    shown = subprocess.run(
        ["systemctl", "--user", "show", "init.scope", "-p", "ControlGroup,Id,LoadState,Slice", "--value"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert sorted(shown) == sorted(properties[key] for key in ("ControlGroup", "Id", "LoadState", "Slice"))


def test_a_failure_is_explained(manager: Manager, write_unit: WriteUnit) -> None:
    script = "echo first; echo the reason >&2; systemd-notify --status='no such image'; sleep 0.3; exit 42"
    name = write_unit(
        "test-fail.service", f'[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c "{script}"\n'
    )
    with pytest.raises(UnitFailure) as caught:
        manager.start_unit(name)
    assert caught.value.what == "no such image (it ended with exit status 42)"
    assert caught.value.properties["Result"] == "exit-code"
    assert caught.value.log == ("first", "the reason")


def test_a_failure_before_the_main_process(manager: Manager, write_unit: WriteUnit) -> None:
    name = write_unit(
        "test-pre.service",
        "[Service]\nExecStartPre=/bin/true\nExecStartPre=/bin/sh -c 'exit 78'\nExecStart=/bin/true\n",
    )
    with pytest.raises(UnitFailure, match="exit status 78"):
        manager.start_unit(name)


def test_no_such_unit(manager: Manager) -> None:
    with pytest.raises(SystemdError, match="not found"):
        manager.start_unit("test-none.service")


def test_a_dependency_that_fails(manager: Manager, write_unit: WriteUnit) -> None:
    write_unit("test-bad.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    name = write_unit(
        "test-needs.service",
        "[Unit]\nRequires=test-bad.service\nAfter=test-bad.service\n[Service]\nExecStart=/bin/true\n",
    )
    with pytest.raises(UnitFailure, match="a unit that it depends on failed"):
        manager.start_unit(name)


def test_a_wait_that_ends_before_the_job(manager: Manager, write_unit: WriteUnit) -> None:
    name = write_unit("test-slow.service", "[Service]\nType=notify\nExecStart=/bin/sleep 100\n")
    with pytest.raises(SystemdError, match=r"not done after 0\.2 seconds"):
        manager.start_unit(name, timeout=0.2)
    manager.stop_unit(name)


def test_a_reload_while_a_job_is_waited_for(manager: Manager, write_unit: WriteUnit) -> None:
    name = write_unit(
        "test-reload.service",
        "[Service]\nExecStartPre=/usr/bin/systemctl --user daemon-reload\nExecStart=/bin/sleep 9\n",
    )
    manager.start_unit(name)
    manager.stop_unit(name)


def test_transient_unit_with_our_stdio(manager: Manager) -> None:
    name = f"test-transient-{os.getpid()}.service"
    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    command = Variant("a(sasb)", [("/bin/echo", ["/bin/echo", "$$HOME; %n", "ä"], False)])
    try:
        manager.start_transient_unit(
            name,
            [("Type", Variant("s", "oneshot")), ("ExecStart", command)],
            stdio=(null, writing, null),
        )
    finally:
        os.close(writing)
        os.close(null)
    with open(reading) as pipe:
        assert pipe.read() == "$HOME; %n ä\n"


def test_attach_a_process_from_outside(manager: Manager, write_unit: WriteUnit) -> None:
    """The caller of ``exec`` is in a session scope, outside of the user manager's own subtree."""
    name = write_unit(
        "test-delegated.service", "[Service]\nDelegate=yes\nDelegateSubgroup=main\nExecStart=/bin/sleep 100\n"
    )
    manager.start_unit(name)
    child = subprocess.Popen(["/bin/sleep", "100"])
    try:
        before = Path(f"/proc/{child.pid}/cgroup").read_text()
        assert "user@" not in before, "this test has to run outside the user manager"
        group = manager.unit_properties(name)["ControlGroup"]
        Path(f"/sys/fs/cgroup{group}/exec").mkdir()  # systemd does not make it
        manager.attach_processes(name, "/exec", [child.pid])
        assert f"0::{group}/exec" in Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
    finally:
        child.kill()
        child.wait()
    with pytest.raises(SystemdError):
        manager.attach_processes(name, "/exec", [1])
    manager.stop_unit(name)


def test_set_properties(manager: Manager, write_unit: WriteUnit) -> None:
    name = write_unit("test-set.service", "[Service]\nExecStart=/bin/sleep 100\n")
    manager.start_unit(name)
    manager.set_properties(name, [("TasksMax", Variant("t", 77))])
    assert manager.unit_properties(name)["TasksMax"] == 77
    subprocess.run(["systemctl", "--user", "revert", "--quiet", name], check=False)


def test_signals_of_other_units(manager: Manager, write_unit: WriteUnit) -> None:
    name = write_unit("test-signal.service", "[Service]\nExecStart=/bin/sleep 0.1\n")
    manager.subscribe()
    manager.start_unit(name)
    members = (signal.fields[3] for signal in manager.read_signals(timeout=60))
    assert any(member in ("UnitRemoved", "PropertiesChanged") for member in members)
