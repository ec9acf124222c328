"""How a new volume is filled."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from usercontainerd.runtime.volumes import plan_copy


def test_a_label_is_the_volumes_own() -> None:
    assert "-Z" in plan_copy("/from", "/to", selinux=True)
    assert "-Z" not in plan_copy("/from", "/to", selinux=False)


def test_copies(tmp_path: Path) -> None:
    source, target = tmp_path / "-from", tmp_path / "to"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_text("text")
    (source / "link").symlink_to("deep/nowhere")
    os.utime(source / "deep/file", (1, 2))
    subprocess.run(plan_copy(f"{source}/.", str(target), selinux=False), check=True)
    assert (target / "deep/file").read_text() == "text"
    assert os.stat(target / "deep/file").st_mtime == 2
    assert os.readlink(target / "link") == "deep/nowhere"
