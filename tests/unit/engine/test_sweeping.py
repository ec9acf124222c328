"""Containers of which nothing is to stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.engine.containers.sweeping import find_candidates
from usercontainerd.runtime.removal import mark_for_removal, remove_everything


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment(
        {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}, 1000
    )


def make(paths: Paths, name: str) -> None:
    for directory in (
        paths.passing_definitions,
        paths.runtime_units,
        paths.bundle(name),
        paths.container_data(name),
    ):
        Path(directory).mkdir(parents=True, exist_ok=True)
    Path(f"{paths.passing_definitions}/{name}.toml").write_text("image = 'x'\nremove = true\n")
    Path(f"{paths.runtime_units}/container@{name}.service").write_text("[Service]\n")
    mark_for_removal(paths.container_data(name))


def test_what_is_swept_up(paths: Paths) -> None:
    for name in ("made", "ran", "ended", "lost", "kept"):
        make(paths, name)
    Path(f"{paths.bundle('ran')}/pid").write_text("1")
    Path(f"{paths.container_data('ended')}/exit").write_text("")
    Path(f"{paths.passing_definitions}/lost.toml").unlink()
    Path(f"{paths.container_data('kept')}/remove").unlink()
    Path(f"{paths.bundle('kept')}/pid").write_text("1")
    assert sorted(find_candidates(paths)) == ["ended", "lost", "ran"]


def test_nothing_stays(paths: Paths) -> None:
    make(paths, "one")
    make(paths, "other")
    assert remove_everything(paths, "one") is None
    left = [str(path) for root in (paths.runtime_root, paths.data) for path in Path(root).rglob("*one*")]
    assert left == []
    assert Path(f"{paths.passing_definitions}/other.toml").exists()
