"""Atomic files and locks."""

import os
import threading
from pathlib import Path

import pytest

from usercontainerd.base.errors import Busy, StoreError
from usercontainerd.kernel.atomicfile import FileLock, write_atomic


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(str(path), b"one")
    write_atomic(str(path), b"two", mode=0o644)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(str(path), b"old")

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("posix.fsync", fail)
    with pytest.raises(StoreError, match=r"No space left.*free some space"):
        write_atomic(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        write_atomic(str(tmp_path / "missing" / "file"), b"")


def test_locks_exclude_and_share(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with FileLock(path), pytest.raises(Busy), FileLock(path, wait=False):
        pass
    reader, another = FileLock(path, exclusive=False), FileLock(path, exclusive=False, wait=False)
    with reader, another, pytest.raises(Busy), FileLock(path, wait=False):
        pass
    with FileLock(path, wait=False):
        pass


def test_removed_lock_is_held_by_nobody(tmp_path: Path) -> None:
    """Who waited for a lock whose file its holder removed gets the lock of the new file."""
    path = tmp_path / "lock"
    holder, waiter = FileLock(str(path)), FileLock(str(path))
    holder.acquire()
    thread = threading.Thread(target=waiter.acquire)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    holder.remove()
    thread.join(10)
    assert path.exists()
    with pytest.raises(Busy), FileLock(str(path), wait=False):
        pass
    waiter.release()
