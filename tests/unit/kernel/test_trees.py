"""Removing trees as containers leave them."""

import os
import resource
import stat
from pathlib import Path

import pytest

from usercontainerd.kernel.trees import make_private_directories, measure_tree, remove_tree


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


def test_a_tree_deeper_than_there_are_descriptors(tmp_path: Path) -> None:
    """A container can nest as deep as it likes; its names can be longer than a path may be."""
    directory = os.open(tmp_path, os.O_RDONLY)
    for name in ("tree", *(["d" * 50] * 1500)):
        os.mkdir(name, dir_fd=directory)
        inner = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert remove_tree(str(tmp_path / "tree"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert list(tmp_path.iterdir()) == []


def test_all_directories_that_are_made_are_private(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    target = tmp_path / "a/b/c"
    for _ in range(2):
        make_private_directories(str(target))
    for path in (target, target.parent, target.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private_directories(str(tmp_path / "file"))


def test_measuring(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "one").write_bytes(b"x" * 1000)
    (tree / "a" / "two").write_bytes(b"y" * 23)
    os.link(tree / "one", tree / "a" / "b" / "again")
    (tree / "loop").symlink_to(tree)
    at = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert measure_tree(at, "tree") == 1023 + len(str(tree))
        assert measure_tree(at, "tree/one") == 1000
        assert measure_tree(at, "nothing") == 0
    finally:
        os.close(at)
