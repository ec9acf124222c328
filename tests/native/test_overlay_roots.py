"""Looking into an image of many layers: wherever the store lies, and however many they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.kernel.idmap import read_id_map
from usercontainerd.runtime.rootview import PLACE, view_root

COUNT = 300  # their paths are longer than the page of options that mount(2) takes


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    """The highest first; some commas and colons in the way."""
    assert str(tmp_path).startswith(f"{PLACE}/"), "below what is mounted over"
    above = tmp_path / "a,b:c=d"
    for number in range(COUNT):
        (above / str(number) / "etc").mkdir(parents=True)
    (above / "0/etc/passwd").write_text("lowest")
    (above / f"{COUNT - 1}/etc/group").write_text("highest")
    return [str(above / str(number)) for number in reversed(range(COUNT))]


def this_user() -> Context:
    return build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())


@pytest.mark.parametrize("count", [1, 2, COUNT])
def test_view(layers: list[str], count: int) -> None:
    context = this_user()
    id_map = read_id_map(context.uid, context.gid, context.user)
    view = view_root(context.programs.inspect_root, id_map, [*layers[: count - 1], layers[-1]])
    assert view.passwd == "lowest"
    assert view.group == ("highest" if count > 1 else "")
