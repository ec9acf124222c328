"""Removing trees as containers leave them."""

import os
from pathlib import Path

from usercontainerd.kernel.trees import remove_tree


def test_a_tree_with_closed_directories_and_links_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x", encoding="ascii")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("x", encoding="ascii")
    (tree / "link").symlink_to(outside)
    os.mkfifo(tree / "fifo")
    os.chmod(tree / "a" / "b", 0)
    os.chmod(tree / "a", 0o500)
    assert remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_nesting_deeper_than_python_recurses(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert remove_tree(str(tmp_path / "d"))
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_gone_already(tmp_path: Path) -> None:
    assert remove_tree(str(tmp_path / "none"))
    assert remove_tree(str(tmp_path / "none" / "none"))
    (tmp_path / "file").write_text("", encoding="ascii")
    assert remove_tree(str(tmp_path / "file"))
    assert os.listdir(tmp_path) == []
