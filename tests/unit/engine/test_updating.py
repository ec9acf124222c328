"""What changes of limits and policies make of a definition."""

from __future__ import annotations

from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.definition.model import Definition, Resources, Restart
from usercontainerd.engine.containers.updating import Changes, apply_changes, describe_keys, plan_swap

MIB = 1 << 20
BACKOFF = (("RestartSec", ("100ms",)), ("RestartSteps", ("10",)), ("RestartMaxDelaySec", ("1min",)))


def change(former: Definition, **fields: Any) -> Definition:
    wanted = {
        key: fields.pop(key) for key in tuple(fields) if key not in ("keys", "lifted", "total", "restarts")
    }
    return apply_changes(former, Changes(Definition("web", "none", **wanted), **fields))


def make(**fields: Any) -> Definition:
    return Definition("web", "nginx", **fields)


def test_what_is_not_meant_stays() -> None:
    former = make(resources=Resources(memory=64 * MIB, pids=10, cpus=2.0), restart=Restart.ON_FAILURE)
    changed = change(former, resources=Resources(memory=32 * MIB), keys=frozenset({"memory"}))
    assert changed == make(
        resources=Resources(memory=32 * MIB, pids=10, cpus=2.0), restart=Restart.ON_FAILURE
    )


def test_a_limit_is_taken_away() -> None:
    former = make(resources=Resources(memory=64 * MIB, cpus=2.0), service=(("MemoryLow", ("8M",)),))
    changed = change(former, lifted=frozenset({"cpus", "memory_low"}))
    assert changed == make(resources=Resources(memory=64 * MIB))


def test_a_directive_that_says_the_same_goes() -> None:
    service = (("MemoryMax", ("1G",)), ("TasksMax", ("7",)), ("Nice", ("5",)))
    changed = change(make(service=service), resources=Resources(memory=32 * MIB), keys=frozenset({"memory"}))
    assert changed.service == (("TasksMax", ("7",)), ("Nice", ("5",)))


def test_the_reservation_is_replaced() -> None:
    changed = change(make(service=(("MemoryLow", ("8M",)),)), service=(("MemoryLow", ("9M",)),))
    assert changed.service == (("MemoryLow", ("9M",)),)


@pytest.mark.parametrize(("memory", "total", "swap"), [(48, 64, 16), (48, 48, 0), (None, -1, -1)])
def test_swap_beside_the_memory(memory: int | None, total: int, swap: int) -> None:
    size = None if memory is None else memory * MIB
    assert plan_swap(size, total if total < 0 else total * MIB) == (swap if swap < 0 else swap * MIB)


@pytest.mark.parametrize(("memory", "total"), [(None, 64), (64, 48)])
def test_swap_needs_a_limit_of_memory(memory: int | None, total: int) -> None:
    with pytest.raises(InvalidArgument, match="counts memory"):
        plan_swap(memory, total)


def test_the_sum_counts_the_memory_that_is_new() -> None:
    former = make(resources=Resources(memory=64 * MIB, swap=0))
    changed = change(former, resources=Resources(memory=32 * MIB), keys=frozenset({"memory"}), total=40 * MIB)
    assert changed.resources == Resources(memory=32 * MIB, swap=8 * MIB)


def test_a_policy_brings_its_pace_and_takes_that_of_the_former() -> None:
    former = make(
        restart=Restart.ALWAYS,
        unit=(("StartLimitIntervalSec", ("0",)), ("After", ("a.service",))),
        service=(*BACKOFF, ("Nice", ("5",))),
        install=(("WantedBy", ("default.target", "mine.target")),),
    )
    changed = change(former, restart=Restart.NO, restarts=True)
    assert changed == make(
        unit=(("After", ("a.service",)),),
        service=(("Nice", ("5",)),),
        install=(("WantedBy", ("mine.target",)),),
    )


def test_always_starts_with_the_session() -> None:
    wanted = {"restart": Restart.ALWAYS, "service": BACKOFF, "install": (("WantedBy", ("default.target",)),)}
    former = make(install=(("WantedBy", ("mine.target",)),))
    once = change(former, restarts=True, **wanted)
    assert once.install == (("WantedBy", ("mine.target", "default.target")),)
    assert once.service == BACKOFF
    assert change(once, restarts=True, **wanted) == once


def test_the_keys_are_named_for_who_has_to_edit_a_file() -> None:
    changes = Changes(
        Definition("web", "none", resources=Resources(memory=1), service=(("MemoryLow", ("1",)),)),
        keys=frozenset({"memory"}),
        lifted=frozenset({"pids"}),
        total=5,
        restarts=True,
    )
    assert describe_keys(changes) == [
        "resources.memory",
        "resources.swap",
        "resources.pids",
        "service.MemoryLow",
        "restart",
    ]
