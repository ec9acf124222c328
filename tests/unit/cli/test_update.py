"""What the options of ``update`` mean."""

from __future__ import annotations

from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import parse_options
from usercontainerd.cli.update import UPDATE, read_changes


def read(*words: str) -> tuple[dict[str, Any], list[str]]:
    return read_changes(parse_options(UPDATE, [*words, "web"]))


def test_limits() -> None:
    table, lifted = read(
        "-m", "64m", "--cpus", "0.5", "--pids-limit", "-1", "-c", "1024", "--blkio-weight", "10"
    )
    assert table == {
        "resources": {"memory": "64m", "cpus": 0.5, "pids": "infinity", "cpu_weight": 39, "io_weight": 1}
    }
    assert lifted == []


@pytest.mark.parametrize(
    ("option", "limit"),
    [
        ("--memory", "memory"),
        ("--memory-swap", "swap"),
        ("--memory-reservation", "memory_low"),
        ("--cpus", "cpus"),
        ("--cpu-shares", "cpu_weight"),
        ("--blkio-weight", "io_weight"),
    ],
)
def test_nothing_is_no_limit(option: str, limit: str) -> None:
    assert read(option, "0") == ({}, [limit])


def test_swap_is_not_in_the_table() -> None:
    assert read("--memory-swap", "1g") == ({}, [])
    assert read("--memory-swap=-1") == ({}, [])


def test_a_policy_and_a_reservation() -> None:
    table, lifted = read("--restart", "on-failure:3", "--memory-reservation", "1m")
    assert table["restart"] == "on-failure"
    assert table["unit"] == {"StartLimitIntervalSec": "1h", "StartLimitBurst": "4"}
    assert table["service"]["MemoryLow"] == str(1 << 20)
    assert "RestartSec" in table["service"]
    assert lifted == []
    assert read("--restart", "no") == ({"restart": "no"}, [])
    with pytest.raises(InvalidArgument, match="no policy"):
        read("--restart", "sometimes")
