"""A command that `exec` runs counts to the container: its limits hold for it. And `create`'s limits arrive."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from tests.support.containers import BUSYBOX, Container, run, wait_until

TEXT = f'image = "{BUSYBOX}"\ncommand = ["sleep", "100000"]\nnetwork = "none"\nstop_timeout = 0\n'


def test_memory(container: Callable[..., Container]) -> None:
    one = container(f'{TEXT}[resources]\nmemory = "32M"\n')
    one.start()
    shown = run("usercontainer", "stats", "--no-stream", "--format={{.MemUsage}} {{.PIDs}}", one.name).stdout
    assert shown.endswith(" / 33.55MB 1\n"), shown
    eat = "head -c 64m /dev/zero | tail > /dev/null"
    result = run("usercontainer", "exec", one.name, "sh", "-c", eat, check=False)
    assert result.returncode != 0
    wait_until(lambda: one.show("Result") == "oom-kill", "systemd sees the kill")


def test_processes(container: Callable[..., Container]) -> None:
    one = container(f"{TEXT}[resources]\npids = 12\n")
    one.start()
    bomb = "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done"
    result = run("usercontainer", "exec", one.name, "sh", "-c", bomb, check=False)
    assert "fork" in result.stderr
    peak = one.cgroup / "pids.peak"
    assert not peak.exists() or int(peak.read_text()) <= 12
    assert one.show("ActiveState") == "active"


def test_limits_of_create() -> None:
    name = f"made-{os.urandom(2).hex()}"
    limits = (
        "-m",
        "48m",
        "--memory-swap",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "30",
        "--cpu-shares",
        "2048",
    )
    run(
        "usercontainer",
        "create",
        "-q",
        "--name",
        name,
        "--network",
        "none",
        *limits,
        BUSYBOX,
        "sleep",
        "1000",
    )
    try:
        run("usercontainer", "start", name)
        group = Container(name).cgroup
        for file, expected in (
            ("memory.max", str(48 << 20)),
            ("memory.swap.max", str(16 << 20)),
            ("cpu.max", "50000 100000"),
            ("pids.max", "30"),
            ("cpu.weight", "79"),
        ):
            assert (group / file).read_text().strip() == expected, file
        seen = run("usercontainer", "exec", name, "cat", "/sys/fs/cgroup/memory.max").stdout.strip()
        assert seen == str(48 << 20)
    finally:
        run("usercontainer", "rm", "-f", name)


def test_doctor_sees_the_controllers() -> None:
    findings = {each["name"]: each for each in json.loads(run("usercontainer", "doctor", "--json").stdout)}
    for controller in ("cpu", "io", "memory", "pids"):
        assert findings[f"cgroup {controller}"]["verdict"] == "fine"
