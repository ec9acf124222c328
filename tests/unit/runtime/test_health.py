"""What checks make of a container's health, and the files that say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.definition.health import HealthPlan
from usercontainerd.runtime.health import (
    HEALTH_FILE,
    Check,
    HealthState,
    Outcome,
    add_outcome,
    health_file,
    parse_state,
    read_check,
    read_last_state,
    read_state,
    render_health,
    render_state,
)

STARTED = 1000.0


def follow(statuses: str, *, retries: int = 2, start_period: float = 0.0) -> list[tuple[str, int]]:
    """State and streak after each check, one every ten seconds."""
    check = Check(("true",), 5.0, retries, start_period, "none")
    state = HealthState(1)
    seen = []
    for turn, status in enumerate(statuses, 1):
        at = STARTED + 10 * turn
        state = add_outcome(state, Outcome(at, at + 1, int(status), "said"), check, STARTED)
        seen.append((state.state, state.streak))
    return seen


def test_a_streak_makes_it_unhealthy_and_one_success_healthy() -> None:
    assert follow("101110") == [
        ("starting", 1),
        ("healthy", 0),
        ("healthy", 1),
        ("unhealthy", 2),
        ("unhealthy", 3),
        ("healthy", 0),
    ]


def test_failures_of_the_start_period() -> None:
    assert follow("1111", start_period=25) == [
        ("starting", 0),
        ("starting", 0),
        ("starting", 1),
        ("unhealthy", 2),
    ]
    assert follow("011", start_period=1000) == [("healthy", 0), ("healthy", 1), ("unhealthy", 2)]


def test_the_last_five_are_remembered() -> None:
    state = HealthState(1)
    for turn in range(9):
        state = add_outcome(
            state, Outcome(turn, turn, 0, str(turn)), Check(("true",), 5.0, 3, 0.0, "none"), STARTED
        )
    assert [each.output for each in state.log] == list("45678")


def make_paths(directory: Path) -> Paths:
    return Paths(config="/c", data="/d", cache="/x", runtime_root=str(directory))


def test_only_what_is_of_this_run_counts(tmp_path: Path) -> None:
    paths = make_paths(tmp_path)
    bundle = Path(paths.bundle("web"))
    bundle.mkdir(parents=True)
    (bundle / "pid").write_text("1")
    run = (bundle / "pid").stat().st_mtime_ns
    file = Path(health_file(paths, "web"))
    file.parent.mkdir(parents=True)
    file.write_text(render_state(HealthState(run, "unhealthy", 4, [Outcome(1.5, 2.5, -1, "a\nb\\n c")])))
    state = read_state(paths, "web")
    assert (state.state, state.streak, state.log[0].output, state.log[0].status) == (
        *("unhealthy", 4),
        "a\nb\\n c",
        -1,
    )
    os.utime(bundle / "pid", ns=(run + 5, run + 5))
    assert (read_state(paths, "web").state, read_state(paths, "web").log) == ("starting", ())
    last = read_last_state(paths, "web")
    assert last is not None
    assert last.state == "unhealthy"


@pytest.mark.parametrize(
    "text", ["", "x", "usercontainerd-health 1\n", "usercontainerd-health 1\n1 well 0\n"]
)
def test_what_is_damaged_says_nothing(text: str) -> None:
    assert parse_state(text) is None


def test_what_is_checked(tmp_path: Path) -> None:
    file = tmp_path / HEALTH_FILE
    assert read_check(str(tmp_path)) is None
    file.write_text("")
    assert read_check(str(tmp_path)) is None
    file.write_text(render_health(HealthPlan(("sh", "-c", "a\n  word b"), retries=7, start_period=1.5)))
    check = read_check(str(tmp_path))
    assert check is not None
    assert check.command == ("sh", "-c", "a\n  word b")
    assert (check.retries, check.start_period, check.timeout, check.action) == (7, 1.5, 30.0, "none")
