"""The attribute is set where the file system has it, and nothing happens elsewhere."""

import shutil
import subprocess
from pathlib import Path

import pytest

from usercontainerd.kernel.placement import spread_directories


def test_directories(tmp_path: Path) -> None:
    spread_directories(str(tmp_path))
    spread_directories(str(tmp_path))
    if shutil.which("lsattr") is None:
        pytest.skip("no lsattr")
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout
    if kind.strip() != "ext2/ext3":
        pytest.skip("no ext4")
    shown = subprocess.run(["lsattr", "-d", tmp_path], capture_output=True, text=True, check=True).stdout
    assert "T" in shown.split()[0]


@pytest.mark.parametrize("path", ["/proc/self", "/nowhere", "/dev/null", "/sys"])
def test_elsewhere(path: str) -> None:
    spread_directories(path)
