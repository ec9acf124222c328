"""A file system of a few megabytes, mounted in a namespace of the test's own, to be filled or made read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """Commands run inside as the namespace's root, which is the user with a single ID."""

    def __init__(self, mountpoint: Path, options: str) -> None:
        self.path = mountpoint
        self.environment = {**os.environ, "XDG_DATA_HOME": str(mountpoint)}
        script = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo ready && exec cat'
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                options,
                str(mountpoint),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._holder.communicate()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        enter = [
            "nsenter",
            "--target",
            str(self._holder.pid),
            "--user",
            "--mount",
            "--preserve-credentials",
            "--",
        ]
        result = subprocess.run(
            [*enter, *command], env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in result.stderr, result.stderr
        assert not check or result.returncode == 0, (command, result.stdout, result.stderr)
        return result

    def container(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("usercontainer", *words, check=check)

    def fail(self, *words: str) -> str:
        """Run a verb that has to fail; return what it says."""
        result = self.container(*words, check=False)
        assert result.returncode == 125, (words, result.stdout, result.stderr)
        return result.stderr

    def assert_whole(self) -> None:
        result = self.container("system", "check", "--max", "0", check=False)
        assert (result.returncode, result.stdout) == (0, ""), result.stdout

    def fill(self, *, leave: int = 0) -> None:
        """Take all space but ``leave`` KiB (whole pages)."""
        self.run("sh", "-c", f"dd if=/dev/zero of={self.path}/filler bs=4k 2>/dev/null; true")
        if leave:
            self.run("truncate", "-s", f"-{leave}K", f"{self.path}/filler")

    def free(self) -> None:
        self.run("rm", f"{self.path}/filler")

    def make_read_only(self) -> None:
        self.run("mount", "-o", "remount,bind,ro", str(self.path))


@contextmanager
def mount_small_disk(directory: Path, options: str = "size=8m") -> Iterator[SmallDisk]:
    mountpoint = directory / "disk"
    mountpoint.mkdir()
    disk = SmallDisk(mountpoint, options)
    try:
        yield disk
    finally:
        disk.close()
