"""Limits of a definition, where the kernel is the machine's own and has all controllers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, Container, wait_until

Make = Callable[..., Container]


def define(script: str, resources: str, more: str = "") -> str:
    command = json.dumps(["sh", "-c", script])
    return (
        f'image = "{BUSYBOX}"\ncommand = {command}\nnetwork = "none"\nstop_timeout = 1\n{more}'
        f"[resources]\n{resources}"
    )


def read_cpu(group: Path) -> dict[str, int]:
    lines = (group / "cpu.stat").read_text().splitlines()
    return {name: int(value) for name, value in map(str.split, lines)}


def test_eater_of_memory_is_killed(container: Make) -> None:
    one = container(define("head -c 64m /dev/zero | tail > /dev/null", 'memory = "32M"\n'))
    one.start(check=False)
    one.finish()
    assert one.show("Result") == "oom-kill"


def test_modest_process_lives_under_the_same_limit(container: Make) -> None:
    one = container(define("head -c 4m /dev/zero | tail > /dev/null", 'memory = "32M"\n'))
    one.start()
    one.finish()
    assert one.show("Result") == "success"


def test_fork_bomb_is_stopped(container: Make, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    bomb = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done"
    script = f"({bomb}) 2> /out/errors; : > /out/over; exec sleep 1000"
    one = container(define(script, "pids = 20\n", f'mounts = ["{output}:/out"]\n'))
    one.start()
    wait_until((output / "over").exists, "the bomb is over")
    assert "can't fork" in (output / "errors").read_text()
    assert (one.cgroup / "pids.max").read_text() == "20\n"
    assert 10 < int((one.cgroup / "pids.current").read_text()) <= 20
    assert one.show("ActiveState") == "active"


def test_busy_loop_gets_its_share(container: Make) -> None:
    """Half a processor: in period after period it is held back."""
    one = container(define("while :; do :; done", "cpus = 0.5\n"))
    one.start()
    first, before = read_cpu(one.cgroup), time.monotonic()
    wait_until(lambda: read_cpu(one.cgroup)["nr_throttled"] >= first["nr_throttled"] + 20, "it is held back")
    last, after = read_cpu(one.cgroup), time.monotonic()
    share = (last["usage_usec"] - first["usage_usec"]) / 1e6 / (after - before)
    assert share < 0.5 * 1.15


def test_busy_loop_without_a_limit_gets_more(container: Make) -> None:
    one = container(define("while :; do :; done", ""))
    one.start()
    wait_until(lambda: read_cpu(one.cgroup)["usage_usec"] > 1_000_000, "it has had a second")
    assert not read_cpu(one.cgroup).get("nr_throttled")


def test_all_limits_are_the_kernels(container: Make, tmp_path: Path) -> None:
    """In the unit's cgroup, where they hold, and in the container's own, where programs such as the JVM look."""
    output = tmp_path / "out"
    output.mkdir()
    resources = 'memory = "64M"\nmemory_high = "48M"\nswap = "16M"\ncpus = 1.5\npids = 30\n'
    resources += "cpu_weight = 250\nio_weight = 300\n"
    files = "memory.max memory.high pids.max cpu.max"
    script = f"cd /sys/fs/cgroup; for f in {files}; do echo $f $(cat $f); done > /out/inside; "
    script += "touch /out/done; sleep 1000"
    one = container(define(script, resources, f'mounts = ["{output}:/out"]\n'))
    one.start()
    wait_until((output / "done").exists, "it has looked")
    expected = {
        "memory.max": str(64 << 20),
        "memory.high": str(48 << 20),
        "memory.swap.max": str(16 << 20),
        "cpu.max": "150000 100000",
        "cpu.weight": "250",
        "pids.max": "30",
    }
    assert {name: (one.cgroup / name).read_text().strip() for name in expected} == expected
    # Not every kernel has a file of its own for it.
    assert one.show("IOWeight") == "300"
    weight = one.cgroup / "io.weight"
    assert not weight.exists() or weight.read_text() == "default 300\n"
    inside = dict(line.split(" ", 1) for line in (output / "inside").read_text().splitlines())
    assert inside == {
        "memory.max": str(64 << 20),
        "memory.high": str(48 << 20),
        "pids.max": "30",
        "cpu.max": "150000 100000",
    }


@pytest.mark.parametrize("knows", [True, False])
def test_limits_hold_after_a_restart(container: Make, knows: bool) -> None:
    """The unit's cgroup hands on controllers then, and takes no process itself; systemd before 254 starts one there."""
    one = container(define("sleep 1000", 'memory = "32M"\npids = 20\n', 'restart = "on-failure"\n'))
    if not knows:
        one.forget_subgroup()
    one.start()

    def is_restarted(times: str) -> bool:
        return one.show("NRestarts") == times and one.show("ActiveState") == "active"

    for turn in ("1", "2"):
        assert (one.cgroup / "container/memory.max").read_text() == f"{32 << 20}\n"
        assert (one.cgroup / "cgroup.procs").read_text() == ""
        os.kill(one.pid, signal.SIGKILL)
        wait_until(partial(is_restarted, turn), "it restarts")
    assert (one.cgroup / "container/pids.max").read_text() == "20\n"


def test_processes_and_swap_are_limited_by_default(container: Make) -> None:
    one = container(define("sleep 1000", 'memory = "64M"\n'))
    one.start()
    assert (one.cgroup / "pids.max").read_text() == "2048\n"
    assert (one.cgroup / "memory.swap.max").read_text() == f"{64 << 20}\n"
