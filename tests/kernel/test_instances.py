"""Limits of an instance that systemd learns of in the middle of its start: what the kernel has in the end."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.containers import BUSYBOX, Container
from usercontainerd.systemd.renewal import read_subgroup, reload_stale_unit

RUNTIME = os.environ["XDG_RUNTIME_DIR"]

TEMPLATE = f"""
image = "{BUSYBOX}"
network = "none"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"

[resources]
memory = "48M"
memory_high = "40M"
cpus = 0.5
cpu_weight = 33
pids = 55
io_weight = 77
"""


def read_group(group: Path, name: str) -> str:
    return (group / name).read_text().strip()


def test_limits_of_a_first_start() -> None:
    one = Container("limited@blue")
    template = one.path.with_name("limited@.toml")
    template.parent.mkdir(parents=True, exist_ok=True)
    template.write_text(TEMPLATE)
    try:
        one.start()
        group = one.cgroup
        assert group.name == "container@limited@blue.service"
        assert group.parent.name == "container.slice"
        assert read_group(group, "memory.max") == str(48 << 20)
        assert read_group(group, "memory.high") == str(40 << 20)
        assert read_group(group, "memory.swap.max") == str(48 << 20)
        assert read_group(group, "pids.max") == "55"
        assert read_group(group, "cpu.max") == "50000 100000"
        assert read_group(group, "cpu.weight") == "33"
        assert one.show("IOWeight") == "77"  # this kernel has no scheduler that knows weights
        # systemd itself leaves the kernel's limits as they are when a running unit's file has changed.
        template.write_text(TEMPLATE.replace("pids = 55", "pids = 66"))
        text = Path(one.show("FragmentPath")).read_text()
        assert not reload_stale_unit(RUNTIME, one.unit, text)
        assert read_group(group, "pids.max") == "55"
        assert reload_stale_unit(RUNTIME, one.unit, text.replace("55", "66"))
        assert read_group(group, "pids.max") == "66"
        assert read_subgroup(one.unit, one.pid) == "/container"
    finally:
        template.unlink()
        one.remove()
