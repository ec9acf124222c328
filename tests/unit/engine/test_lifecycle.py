"""Jobs on units, with a systemd that only remembers what it was asked."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InUse, SystemdError
from usercontainerd.base.programs import Programs
from usercontainerd.engine.containers.lifecycle import (
    is_idle,
    remove_container,
    restart_container,
    start_container,
    stop_containers,
)
from usercontainerd.engine.context import Context, build_context
from usercontainerd.systemd.bus import BusError
from usercontainerd.systemd.manager import NO_SUCH_UNIT, Manager, UnitStatus
from usercontainerd.systemd.message import MEMBER, SIGNAL, Message


class FakeManager(Manager):
    """``states`` are the ActiveState of units; a stop job ends when ``endings`` says, or by a kill."""

    def __init__(self, **states: str) -> None:
        self.states = {f"container@{name}.service": state for name, state in states.items()}
        self.jobs: dict[str, int] = {}
        self.main_pid = 0
        self.stale = False
        self.fragment = "/run/x/systemd/user/x"
        self.stubborn = False
        self.results: list[str] = []
        self.texts: list[str] = []
        self.calls: list[str] = []
        self.bus = self  # type: ignore[assignment]

    def get_properties(self, requests: Any) -> list[Any]:
        known = {"NeedDaemonReload": self.stale, "FragmentPath": self.fragment, "MainPID": self.main_pid}
        known["ControlGroup"] = ""
        if requests[0][2] == "StatusText":
            return [self.texts.pop(0)]
        return [known.get(key, self.states.get(unit, "inactive")) for unit, _, key in requests]

    def list_units(self, *patterns: str, states: Any = ()) -> list[UnitStatus]:
        rows = [
            (unit, "", "loaded", state, "", "", "/", self.jobs.get(unit, 0), "", "/")
            for unit, state in self.states.items()
        ]
        return [UnitStatus(row) for row in rows if row[0] in patterns]

    def reload(self) -> None:
        self.calls.append("reload")

    def reset_failed(self, unit: str) -> None:
        self.calls.append(f"reset {unit}")

    def queue_job(self, method: str, unit: str, mode: str = "replace") -> str:
        self.calls.append(f"{method.removesuffix('Unit').lower()} {unit}")
        return "/job/1"

    def wait_job(self, job: str, *, timeout: float | None = None) -> str:
        return self.results.pop(0) if self.results else "done"

    def check_result(self, result: str, unit: str) -> None:
        assert result == "done"

    def call(
        self, member: str, signature: str = "", *arguments: Any, timeout: float | None = 25.0
    ) -> tuple[Any, ...]:
        unit = arguments[0]
        self.calls.append(f"{member} {unit}")
        if unit not in self.states:
            raise BusError(NO_SUCH_UNIT, "not loaded")
        if member == "KillUnit":
            assert arguments[1] == "main", "the unit's clean-up is not to be killed"
            self.states[unit] = "failed"
            return ()
        if not self.stubborn:
            self.states[unit] = "inactive"
        return (f"/job/{unit}",)

    def wait_signal(self, wanted: Any, *, timeout: float | None = None) -> Message | None:
        for unit, state in self.states.items():
            signal = Message(SIGNAL, 1, {MEMBER: "JobRemoved"}, (1, f"/job/{unit}", unit, "done"))
            if state in ("inactive", "failed") and wanted(signal):
                return signal
        assert timeout is not None, "would wait for ever"
        return None


@pytest.fixture
def context(tmp_path: Path) -> Context:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return build_context(environment, Programs("/nowhere"), os.getuid(), os.getgid())


def test_start() -> None:
    manager = FakeManager(web="inactive")
    start_container(manager, "web")
    assert manager.calls == ["start container@web.service"]


def test_start_of_one_that_runs_or_failed_or_changed() -> None:
    manager = FakeManager(web="active")
    start_container(manager, "web")
    assert manager.calls == []
    manager = FakeManager(web="failed")
    manager.stale = True
    start_container(manager, "web")
    assert manager.calls == ["reload", "reset container@web.service", "start container@web.service"]


def test_a_start_that_takes_long_is_told() -> None:
    manager = FakeManager(web="inactive")
    manager.results = ["", "", "", "", "done"]
    manager.texts = ["", "Pulling 1 MB", "Pulling 1 MB", "Starting"]
    told: list[str] = []
    start_container(manager, "web", report=told.append)
    assert told == ["Pulling 1 MB", "Starting"]


def test_stop_several_at_once_and_those_that_are_not_loaded() -> None:
    manager = FakeManager(one="active", two="active")
    stop_containers(manager, ["one", "two", "three"])
    assert manager.calls == [f"StopUnit container@{name}.service" for name in ("one", "two", "three")]


def test_stop_kills_after_the_time() -> None:
    manager = FakeManager(one="active")
    manager.stubborn = True
    stop_containers(manager, ["one"], timeout=0.01)
    assert manager.calls == ["StopUnit container@one.service", "KillUnit container@one.service"]


def test_stop_that_systemd_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = FakeManager(one="active")

    def refuse(*_: Any, **__: Any) -> tuple[Any, ...]:
        raise BusError("org.freedesktop.DBus.Error.AccessDenied", "no")

    monkeypatch.setattr(manager, "call", refuse)
    with pytest.raises(SystemdError, match=r"container@one\.service: no"):
        stop_containers(manager, ["one"])


def make_created(context: Context, name: str) -> list[Path]:
    paths = context.paths
    files = [
        Path(f"{paths.created_definitions}/{name}.toml"),
        Path(f"{paths.runtime_units}/container@{name}.service"),
        Path(f"{paths.bundle(name)}/plan"),
        Path(f"{paths.container_data(name)}/layer/upper/file"),
        Path(f"{paths.crun_root}/{name}/status"),
        Path(f"{paths.runtime}/summaries/{name}"),
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("image = 'x'\n")
    return files


def test_remove_takes_all_of_it(context: Context) -> None:
    files = make_created(context, "web")
    other = make_created(context, "other")
    remove_container(context, FakeManager(), "web")
    assert not any(file.exists() for file in files)
    assert not os.path.exists(context.paths.container_data("web"))
    assert all(file.exists() for file in other)
    assert os.listdir(f"{context.paths.data}/trash") == []


def test_remove_of_a_running_one_needs_force(context: Context) -> None:
    files = make_created(context, "web")
    manager = FakeManager(web="active")
    with pytest.raises(InUse, match="usercontainer stop web"):
        remove_container(context, manager, "web")
    assert all(file.exists() for file in files)
    manager.fragment = "/run/user/1000/systemd/generator/container@web.service"
    remove_container(context, manager, "web", force=True)
    assert not any(file.exists() for file in files)
    assert "reload" in manager.calls


def test_a_definition_of_the_users_is_left_alone(context: Context) -> None:
    files = make_created(context, "web")
    own = Path(f"{context.paths.definition_directories[0]}/web.toml")
    own.parent.mkdir(parents=True)
    own.write_text("image = 'x'\n")
    with pytest.raises(InUse) as caught:
        remove_container(context, FakeManager(), "web", force=True)
    assert str(own) in str(caught.value)
    assert own.exists() and all(file.exists() for file in files)


def test_idle() -> None:
    manager = FakeManager(a="active", b="failed", c="inactive")
    assert [is_idle(manager, name) for name in "abcd"] == [False, True, True, True]
    manager.jobs["container@c.service"] = 7
    assert not is_idle(manager, "c"), "it is between a stop and a start"


def test_restart_is_one_job() -> None:
    manager = FakeManager(web="failed")
    manager.stale = True
    restart_container(manager, "web")
    assert manager.calls == ["reload", "reset container@web.service", "restart container@web.service"]


def test_restart_kills_the_process_that_was_there() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        manager = FakeManager(web="active")
        manager.main_pid = process.pid
        manager.results = ["", "done"]
        restart_container(manager, "web", timeout=0.01)
        assert process.wait(timeout=60) == -signal.SIGKILL
