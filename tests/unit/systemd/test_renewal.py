from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.kernel import cgroups
from usercontainerd.systemd.renewal import (
    DROP_IN,
    is_generated_unit_current,
    read_subgroup,
    reload_stale_unit,
    write_drop_in,
)

TOP = Path(__file__).resolve().parents[3]
UNIT = "container@app.service"


def test_current(tmp_path: Path) -> None:
    assert is_generated_unit_current(str(tmp_path), UNIT, "anything")
    (tmp_path / "systemd/generator").mkdir(parents=True)
    (tmp_path / "systemd/generator" / UNIT).write_text("one")
    assert is_generated_unit_current(str(tmp_path), UNIT, "one")
    assert not is_generated_unit_current(str(tmp_path), UNIT, "two")
    assert not reload_stale_unit(str(tmp_path), UNIT, "one")


def test_drop_in(tmp_path: Path) -> None:
    path = tmp_path / "systemd/user" / f"{UNIT}.d" / "10-image.conf"
    assert not write_drop_in(str(tmp_path), UNIT, "")
    assert write_drop_in(str(tmp_path), UNIT, "one")
    assert not write_drop_in(str(tmp_path), UNIT, "one")
    assert write_drop_in(str(tmp_path), UNIT, "two")
    assert path.read_text() == "two"
    (path.parent / "mine.conf").touch()
    assert write_drop_in(str(tmp_path), UNIT, "")
    assert path.parent.exists()
    assert not path.exists()
    (path.parent / "mine.conf").unlink()
    path.touch()
    path.write_text("x")
    assert write_drop_in(str(tmp_path), UNIT, "")
    assert not path.parent.exists()
    path.parent.touch()
    with pytest.raises(UsercontainerError, match=DROP_IN):
        write_drop_in(str(tmp_path), UNIT, "x")


@pytest.mark.parametrize(
    ("line", "subgroup"),
    [
        (f"/user.slice/{UNIT}/container", "/container"),
        (f"/user.slice/{UNIT}", "/"),
        (f"/user.slice/{UNIT}/a/b", "/a/b"),
        (f"/user.slice/x{UNIT}", None),
        ("/", None),
    ],
)
def test_subgroup(line: str, subgroup: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cgroup"
    file.write_text(f"1:cpu:/somewhere/{UNIT}/else\n0::{line}\n")
    monkeypatch.setattr(cgroups, "read_kernel_file", lambda _path: file.read_bytes())
    assert read_subgroup(UNIT, 1) == subgroup


def test_no_such_process() -> None:
    assert read_subgroup(UNIT, 2**22 + 1) is None


def test_the_client_imports_little() -> None:
    """It is on the command's fast paths."""
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); import usercontainerd.systemd.manager; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True, env={}
    )
    heavy = {
        "dataclasses",
        "enum",
        "re",
        "json",
        "typing",
        "socket",
        "asyncio",
        "pathlib",
        "subprocess",
        "inspect",
    }
    assert not set(run.stdout.split()) & heavy
