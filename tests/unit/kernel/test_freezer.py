"""The freezer's files, played by ordinary ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import HostError
from usercontainerd.kernel.cgroups import is_frozen
from usercontainerd.kernel.freezer import freeze_group, has_own_freeze, thaw_group


def make_group(directory: Path, *, told: bool, frozen: bool) -> str:
    (directory / "cgroup.freeze").write_text(f"{told:d}\n")
    (directory / "cgroup.events").write_text(f"populated 1\nfrozen {frozen:d}\n")
    return str(directory)


def test_what_stands_still_by_a_group_above(tmp_path: Path) -> None:
    group = make_group(tmp_path, told=False, frozen=True)
    assert (is_frozen(group), has_own_freeze(group)) == (True, False)
    assert not is_frozen(f"{group}/gone")
    thaw_group(f"{group}/gone")


def test_what_does_not_come_to_a_stand_goes_on(tmp_path: Path) -> None:
    group = make_group(tmp_path, told=False, frozen=False)
    with pytest.raises(HostError, match="not all of its processes"):
        freeze_group(group, patience=0)
    assert (tmp_path / "cgroup.freeze").read_text().startswith("0")
