"""What `top` and `stats` make of the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.port import read_ports
from usercontainerd.cli.stats import describe_usage
from usercontainerd.engine.containers import usage as usage_module
from usercontainerd.engine.containers.listing import Container, State
from usercontainerd.engine.containers.processes import (
    COLUMNS,
    DEFAULT,
    map_id,
    parse_columns,
    parse_map,
    read_names,
    show_span,
    show_terminal,
)
from usercontainerd.engine.containers.usage import Usage
from usercontainerd.kernel.processes import Process
from usercontainerd.runtime.summary import Summary

STATUS = {"Uid": "1\t1000\t1\t1", "Gid": "1\t2\t1\t1", "NSpid": "4321\t7"}


def test_a_name_may_be_anything() -> None:
    """It is what the process says: a parenthesis and blanks do not shift the fields."""
    stat = b"4321 (a) S 1 (b) R 12 11 11 34816 0 0 0 0 0 0 250 50 0 0 20 5 1 0 300 4096 2"
    process = Process(stat, STATUS, b"sh\0-c\0x y\0")
    assert (process.name, process.state, process.parent, process.tty) == ("a) S 1 (b", "R", 12, 34816)
    assert (process.uid, process.ids, process.arguments) == (1000, (4321, 7), "sh -c x y")
    assert Process(stat, STATUS, b"").arguments == "[a) S 1 (b]"


def test_columns() -> None:
    assert parse_columns(()) == DEFAULT
    assert parse_columns(("pid,cmd", "USER")) == ("pid", "args", "user")
    assert parse_columns(("-eo", "pid,comm")) == ("pid", "comm")
    for word in ("-ef", "aux", "-aux"):
        assert set(parse_columns((word,))) <= COLUMNS.keys()
    for words in (["x"], ["-H"], ["pid"] * 65):
        with pytest.raises(InvalidArgument):
            parse_columns(words)


def test_users_of_the_container() -> None:
    ranges = parse_map(b"         0       1000          1\n         1     100000      65536\n")
    assert [map_id(number, ranges) for number in (1000, 100000, 100033, 5)] == [0, 1, 34, 65534]
    assert read_names("root:x:0:0\nother:x:0:0\nbroken\nlong:x:99999999999:1\nwww:x:33:33\n") == {
        0: "root",
        33: "www",
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.484, "0.48s"), (59.999, "1m0s"), (61.5, "1m1.5s"), (3600, "1h0m0s")]
)
def test_spans(seconds: float, text: str) -> None:
    assert show_span(seconds) == text


def test_terminals() -> None:
    assert [show_terminal(each) for each in (0, 34816, 34819, 1025)] == ["?", "pts/0", "pts/3", "4:1"]


def test_figures_of_a_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest limit holds; what could go from the file cache at any time is not used."""
    group = tmp_path / "slice" / "unit"
    group.mkdir(parents=True)
    (tmp_path / "slice" / "memory.max").write_text("8000000\n")
    for name, text in {
        "cpu.stat": "usage_usec 3000000\nuser_usec 1\n",
        "memory.current": "5000000\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1\ninactive_file 1000000\n",
        "io.stat": "8:0 rbytes=1000 wbytes=20 rios=1\n8:16 rbytes=500 wbytes=0\n",
    }.items():
        (group / name).write_text(text)
    monkeypatch.setattr(usage_module, "find_cgroup_mount", lambda: str(tmp_path))
    usage = Usage(str(group), 0, 10.0)
    shown = describe_usage("x", usage, None, full=False)
    assert (shown["CPUPerc"], shown["CPUTime"], shown["PIDs"]) == ("30.00%", "3s", "--")
    assert (shown["MemUsage"], shown["MemPerc"]) == ("4MB / 8MB", "50.00%")
    assert (shown["BlockIO"], shown["NetIO"]) == ("1.5kB / 20B", "-- / --")
    (group / "cpu.stat").write_text("usage_usec 4000000\n")
    assert describe_usage("x", Usage(str(group), 0, 12.0), usage, full=False)["CPUPerc"] == "50.00%"


def test_ports() -> None:
    ports = "0.0.0.0:8080->80/tcp, [::1]:5000-5001->50-51/udp"
    one = Container("x", State.RUNNING, Summary(ports=ports))
    assert list(read_ports(one)) == [
        ("80/tcp", "0.0.0.0:8080"),
        ("50/udp", "[::1]:5000"),
        ("51/udp", "[::1]:5001"),
    ]
