"""What the board shows when it is told of much at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from dbus_next import Variant

from usercontainerd.daemon import board as module
from usercontainerd.daemon.board import Board
from usercontainerd.engine.containers.listing import State
from usercontainerd.systemd.manager import UnitStatus


class Shown:
    """Stands for a container's object."""

    def __init__(self, _service: Any, container: Any, _text: str, _autostart: bool) -> None:
        self.path = f"/{container.name}"
        self.container = container

    def update(self, container: Any, _text: str, _autostart: bool) -> list[str]:
        self.container = container
        return []


class Systemd:
    """Two units; of the failed one the status text comes only when ``gate`` is open."""

    def __init__(self) -> None:
        self.states = {"broken": "failed", "app": "inactive"}
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    async def ask(self, *words: Any, **_: Any) -> list[Any]:
        if words[3] == "Get":
            self.asked.set()
            await self.gate.wait()
            return [Variant("s", "why")]
        names = self.states if words[3] == "ListUnitsByPatterns" else ["app"]
        return [
            [[f"container@{n}.service", "", "loaded", self.states[n], "", "", "", 0, "", ""] for n in names]
        ]


def read_container(_paths: Any, name: str, unit: UnitStatus, _summarise: Any) -> Any:
    state = {"failed": State.FAILED, "active": State.RUNNING}.get(unit.active, State.CREATED)
    return SimpleNamespace(name=name, state=state, group=None)


def test_what_was_read_first_is_not_shown_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is being read, and that takes a while; meanwhile somebody starts a container and asks for its state."""

    def list_containers(paths: Any, units: dict[str, UnitStatus], *words: Any, **_: Any) -> list[Any]:
        return [read_container(paths, name, units[name], *words) for name in ("broken", "app")]

    monkeypatch.setattr(module, "list_containers", list_containers)
    monkeypatch.setattr(module, "read_container", read_container)
    monkeypatch.setattr(module, "list_autostarted", lambda _: set())
    monkeypatch.setattr(module, "is_autostarted", lambda *_: False)
    monkeypatch.setattr(module, "is_known", lambda *_: True)
    monkeypatch.setattr(module, "ContainerObject", Shown)

    async def play() -> None:
        systemd = Systemd()
        server = SimpleNamespace(add=lambda *_: None, report_changes=lambda *_: None)
        service: Any = SimpleNamespace(
            context=SimpleNamespace(paths=None),
            connection=systemd,
            server=server,
            report_counts=lambda: None,
            report_state=lambda *_: None,
        )
        board = Board(service)
        everything = asyncio.create_task(board.refresh_all())
        await systemd.asked.wait()
        systemd.states["app"] = "active"
        one = asyncio.create_task(board.refresh({"app"}))
        await asyncio.sleep(0)
        systemd.gate.set()
        await asyncio.gather(everything, one)
        assert board.containers["app"].container.state == State.RUNNING

    asyncio.run(asyncio.wait_for(play(), 60))
