"""Cached artifacts: directories named KIND-HASH, built once, made visible by one rename.

A lock per artifact serves twice: its builder holds it exclusively (so that two builds share the work), and
whoever uses the artifact holds it shared (so that `clean` never pulls it away under a running machine).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


def say(text: str) -> None:
    """Tell the person who waits what is going on."""
    print(f"machine: {text}", file=sys.stderr, flush=True)


def find_cache_directory() -> Path:
    """Where everything of ours lies, running machines' files included."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    directory = Path(base).expanduser().resolve() / "usercontainerd" / "machine"
    # 0700: the root file systems below hold setuid programs that the host's users must not reach.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


@contextmanager
def lock_file(path: Path, mode: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold an flock on a file for the time of a block."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, mode)
        yield fd
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Artifact:
    """A finished, immutable directory of the cache, held against removal while `lock_fd` is open."""

    path: Path
    lock_fd: int

    def release(self) -> None:
        """Let `clean` have it."""
        os.close(self.lock_fd)


def obtain_artifact(kind: str, digest: str, build: Callable[[Path], None]) -> Artifact:
    """The artifact KIND-DIGEST; built first, by whoever comes first, if it is not there."""
    cache = find_cache_directory()
    final = cache / f"{kind}-{digest}"
    fd = _take_lock(cache, final.name, fcntl.LOCK_SH)
    try:
        if not final.exists():
            _build_locked(fd, final, build)
        with suppress(PermissionError):  # built by root, used by another
            os.utime(final)
        return Artifact(final, fd)
    except BaseException:
        os.close(fd)
        raise


def _take_lock(cache: Path, name: str, mode: int) -> int:
    (cache / "locks").mkdir(exist_ok=True)
    path = cache / "locks" / name
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, mode)
            # `clean` may have removed the file between the two calls: then this lock protects nothing.
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _build_locked(fd: int, final: Path, build: Callable[[Path], None]) -> None:
    """Build, or wait until somebody else has; a shared lock is held at the end.

    Never wait for the exclusive lock: who has built goes on with a shared one for as long as its machine runs.
    """
    told = False
    while not final.exists():
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say(f"another process is building {final.name}; waiting for it")
                told = True
            # Given up for a moment: two that wait must not keep each other from building, should the builder die.
            fcntl.flock(fd, fcntl.LOCK_UN)
            time.sleep(0.1)
            fcntl.flock(fd, fcntl.LOCK_SH)
            continue
        if not final.exists():
            _build_stage(final, build)
    fcntl.flock(fd, fcntl.LOCK_SH)


def _build_stage(final: Path, build: Callable[[Path], None]) -> None:
    stage = final.with_name(f".stage-{final.name}")
    # Only a builder that was killed leaves one: the lock is ours.
    remove_tree(stage)
    stage.mkdir(mode=0o700)
    try:
        build(stage)
        stage.rename(final)
    finally:
        remove_tree(stage)


def remove_tree(path: Path) -> None:
    """Remove a directory tree, whatever modes its directories have; nothing there is fine, nor is it an error if
    another process removes it at the same time.
    """
    while path.exists():
        with suppress(FileNotFoundError):
            if os.geteuid() != 0:
                for directory, _, _ in os.walk(path):
                    os.chmod(directory, 0o700)
            shutil.rmtree(path)


def clean_artifacts(is_stale: Callable[[str, float], bool]) -> list[str]:
    """Remove the artifacts that are stale (by name and age in seconds) and unused; the names removed."""
    cache = find_cache_directory()
    removed = []
    for path in sorted(cache.iterdir()):
        name = path.name.removeprefix(".stage-")
        try:
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue  # somebody else is cleaning
        if "-" not in name or not is_stale(name, age):
            continue
        try:
            fd = _take_lock(cache, name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # a machine runs on it, or someone builds it
        try:
            # Renamed first, so that nobody meets half of it.
            stage = path.with_name(f".stage-{name}")
            if stage != path:
                remove_tree(stage)
                path.rename(stage)
            remove_tree(stage)
            (cache / "locks" / name).unlink()
            removed.append(path.name)
        finally:
            os.close(fd)
    return removed
