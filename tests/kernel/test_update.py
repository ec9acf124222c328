"""Limits that are changed while the container runs: the kernel's files, the unit, and after a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.containers import BUSYBOX, Container, run

MIB = 1 << 20


@pytest.fixture
def one() -> Iterator[Container]:
    name = f"made-{os.urandom(3).hex()}"
    limits = ("-m", "64m", "--cpus", "1.5", "--pids-limit", "50", "--stop-timeout", "0")
    create = ("usercontainer", "create", "-q", "--name", name, "--network", "none", *limits)
    run(*create, BUSYBOX, "sleep", "1000")
    try:
        run("usercontainer", "start", name)
        yield Container(name)
    finally:
        run("usercontainer", "rm", "-f", name)


def read_limits(one: Container) -> dict[str, str]:
    files = ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "pids.max")
    return {file: (one.cgroup / file).read_text().strip() for file in files}


def read_inside(one: Container) -> list[str]:
    """What a program in the container finds in its own cgroup, such as the JVM."""
    files = [f"/sys/fs/cgroup/{file}" for file in ("memory.max", "cpu.max", "pids.max")]
    return run("usercontainer", "exec", one.name, "cat", *files).stdout.splitlines()


def test_a_running_container(one: Container) -> None:
    before = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(64 * MIB),
        "memory.low": "0",
        "cpu.max": "150000 100000",
        "cpu.weight": "100",
        "pids.max": "50",
    }
    assert read_limits(one) == before
    pid = one.pid
    changes = ("-m", "48m", "--memory-swap", "56m", "--memory-reservation", "8m", "--cpus", "0.5")
    run("usercontainer", "update", *changes, "--cpu-shares", "2048", "--pids-limit", "20", one.name)
    after = {
        "memory.max": str(48 * MIB),
        "memory.swap.max": str(8 * MIB),
        "memory.low": str(8 * MIB),
        "cpu.max": "50000 100000",
        "cpu.weight": "79",
        "pids.max": "20",
    }
    assert read_limits(one) == after
    assert read_inside(one) == [str(48 * MIB), "50000 100000", "20"]
    assert one.pid == pid, "it was not restarted"
    shown = run("systemctl", "--user", "cat", one.unit).stdout.splitlines()
    assert {"MemoryMax=48M", "MemorySwapMax=8M", "CPUQuota=50%", "CPUWeight=79", "TasksMax=20"} <= {*shown}
    assert one.show("MemoryMax") == str(48 * MIB)
    bomb = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done"
    assert "fork" in run("usercontainer", "exec", one.name, "sh", "-c", bomb, check=False).stderr
    run("usercontainer", "restart", one.name)
    assert read_limits(one) == after


def test_a_limit_is_taken_away(one: Container) -> None:
    run("usercontainer", "update", "-m", "0", "--cpus", "0", "--pids-limit=-1", one.name)
    limits = read_limits(one)
    assert limits["memory.max"] == limits["memory.swap.max"] == limits["pids.max"] == "max"
    assert limits["cpu.max"] == "max 100000"
    assert read_inside(one) == ["max", "max 100000", "max"]


def test_what_uses_more_than_it_may_now_is_killed(one: Container) -> None:
    eat = "head -c 40m /dev/zero | tail > /dev/null"
    run("usercontainer", "exec", one.name, "sh", "-c", eat)
    run("usercontainer", "update", "-m", "16m", "--memory-swap", "16m", one.name)
    assert run("usercontainer", "exec", one.name, "sh", "-c", eat, check=False).returncode != 0
