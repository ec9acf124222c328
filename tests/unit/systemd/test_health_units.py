"""The timer of health checks, and what the container's unit has to do with it."""

from __future__ import annotations

from typing import Any

import pytest

from usercontainerd.base.programs import Programs
from usercontainerd.definition.model import Definition, Health, HealthAction, Restart
from usercontainerd.systemd.unit import build_health_timer, build_image_drop_in, build_unit

COMMAND = ("CMD", "true")


def make(**health: Any) -> Definition:
    return Definition("web", "nginx", sources=("/c/web.toml",), health=Health(**health))


def read(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and line[0] not in "#["]


def test_the_timer() -> None:
    text = build_health_timer(make(command=COMMAND))
    assert text.startswith("# Generated from /c/web.toml\n")
    lines = read(text)
    assert {"BindsTo=container@web.service", "After=container@web.service", "DefaultDependencies=no"} <= {
        *lines
    }
    assert lines[-3:] == ["OnActiveSec=1", "OnUnitInactiveSec=30", "AccuracySec=1"]


def test_checks_of_the_start_period_are_more_but_not_too_many() -> None:
    def early(**health: Any) -> list[str]:
        lines = read(build_health_timer(make(command=COMMAND, **health)))
        return [line.removeprefix("OnActiveSec=") for line in lines if line.startswith("OnActiveSec=")]

    assert early(start_period=20.0) == ["5", "10", "15", "20"]
    assert early(start_period=3.0) == ["5"]
    assert len(early(start_period=86400.0, start_interval=1.0)) == 20


@pytest.mark.parametrize("health", [{}, {"command": ("NONE",)}, {"command": COMMAND, "interval": 0.0}])
def test_without_a_timer(health: dict[str, Any]) -> None:
    definition = make(**health)
    assert build_health_timer(definition) == ""
    assert "Upholds" not in build_unit(definition, Programs("/p"))


def test_the_unit_upholds_it() -> None:
    definition = make(command=COMMAND)
    assert "Upholds=container-health@web.timer" in read(build_unit(definition, Programs("/p")))
    own = Definition(**{**definition.__dict__, "unit": (("Upholds", ("a.service",)),)})
    assert [line for line in read(build_unit(own, Programs("/p"))) if line.startswith("Upholds")] == [
        "Upholds=container-health@web.timer",
        "Upholds=a.service",
    ]


def test_what_only_the_image_asks_for() -> None:
    definition = make()
    assert not build_health_timer(definition, Health(command=COMMAND)).startswith("# Generated from ")
    drop_in = build_image_drop_in(definition, None, with_timer=True)
    assert read(drop_in) == ["Upholds=container-health@web.timer"]
    assert build_image_drop_in(definition, None) == ""


def test_a_kill_is_a_failure_also_where_it_ends_a_stop() -> None:
    definition = Definition(
        "web",
        "nginx",
        stop_timeout=0.0,
        restart=Restart.ON_FAILURE,
        health=Health(command=COMMAND, on_failure=HealthAction.KILL),
    )
    assert "RestartForceExitStatus=SIGKILL" in read(build_unit(definition, Programs("/p")))
