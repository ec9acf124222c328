"""Which files were touched since: every kind of change is seen, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from usercontainerd.store.survey import list_touched


def look(root: Path, since: int) -> list[bytes]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(list_touched(fd, since))
    finally:
        os.close(fd)


def make_tree(root: Path) -> int:
    """Return a time after all of it was made, and before what comes next."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("x")
    (root / "link").symlink_to("/")
    mark = root.parent / "mark"
    while True:  # the kernel's clock for files ticks slowly
        mark.touch()
        made = mark.stat().st_mtime_ns
        if made > max(path.lstat().st_ctime_ns for path in (root, *root.rglob("*"))):
            break
    while True:
        mark.touch()
        if mark.stat().st_mtime_ns > made:
            return made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: None, []),
        (lambda root: (root / "a/b/file").read_text(), []),
        (lambda root: (root / "a/b/file").write_text("y"), [b"a/b/file"]),
        (lambda root: (root / "a/b/file").chmod(0o600), [b"a/b/file"]),
        (lambda root: os.utime(root / "a/b/file", (1, 1)), [b"a/b/file"]),
        (lambda root: (root / "a/b/file").unlink(), [b"a/b"]),
        (lambda root: (root / "new").touch(), [b".", b"new"]),
        (lambda root: os.link(root / "a/b/file", root / "a/hard"), [b"a", b"a/b/file", b"a/hard"]),
    ],
)
def test_changes(tmp_path: Path, change: Callable[[Path], object], expected: list[bytes]) -> None:
    root = tmp_path / "root"
    since = make_tree(root)
    change(root)
    assert look(root, since) == expected


def test_deep_trees_need_no_recursion(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    fds = [here]
    for _ in range(400):
        os.mkdir("d", dir_fd=fds[-1])
        fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
    for fd in fds[1:]:
        os.close(fd)
    assert len(list(list_touched(here, 0))) == 401
    assert list(list_touched(here, time.time_ns() + 10**12)) == []
    os.close(here)
