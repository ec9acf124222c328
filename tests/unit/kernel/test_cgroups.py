"""Cgroups, in directories that stand for them: their files change only when a test changes them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from usercontainerd.kernel import cgroups
from usercontainerd.kernel.cgroups import ASIDE, SUBGROUP, kill_leftovers, kill_until_empty


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A unit's cgroup, whose launcher we are."""
    for name in (SUBGROUP, ASIDE):
        (tmp_path / "unit" / name).mkdir(parents=True)
        (tmp_path / "unit" / name / "cgroup.procs").write_text(f"{os.getpid()}\n" if name == SUBGROUP else "")
    monkeypatch.setattr(cgroups, "find_cgroup_mount", lambda: str(tmp_path))
    monkeypatch.setattr(cgroups, "read_own_cgroup", lambda: f"/unit/{SUBGROUP}")
    return tmp_path / "unit"


@pytest.mark.parametrize("name", [SUBGROUP, ASIDE])
def test_what_is_left_is_killed_and_we_are_not(
    unit: Path, name: str, sleeper: subprocess.Popen[bytes]
) -> None:
    with (unit / name / "cgroup.procs").open("a") as file:
        file.write(f"0\n{sleeper.pid}\n")
    kill_leftovers(patience=0.05)
    assert sleeper.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("own", [None, "/unit", "/unit/.control"])
def test_elsewhere_nothing_is_killed(
    unit: Path, own: str | None, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (unit / SUBGROUP / "cgroup.procs").write_text(f"{sleeper.pid}\n")
    monkeypatch.setattr(cgroups, "read_own_cgroup", lambda: own)
    kill_leftovers()
    assert sleeper.poll() is None


def test_killing_goes_on_until_none_is_left_and_never_by_the_group(
    unit: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """A group that was killed by cgroup.kill kills what systemd starts in it later."""
    (unit / ASIDE / "cgroup.procs").write_text(f"{sleeper.pid}\n")
    (unit / ASIDE / "cgroup.kill").touch()
    kill_until_empty([str(unit / ASIDE), str(unit / "gone")], patience=0.05)
    assert sleeper.wait(60) == -signal.SIGKILL
    assert (unit / ASIDE / "cgroup.kill").read_text() == ""
