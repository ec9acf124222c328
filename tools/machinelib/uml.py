"""Fetches a Linux kernel that runs as one process (Debian's user-mode-linux), and makes it run on this host.

The newest, from sid, is several times faster than Debian 12's (its seccomp mode needs no ptrace), but wants a newer C
library than the host may have: it runs with the loader and library of the machine's own root file system.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from machinelib.apt import open_suite, run_tool
from machinelib.cache import Artifact, find_cache_directory, obtain_artifact, say
from machinelib.hosttools import MachineError, require_programs
from machinelib.recipe import hash_inputs


@dataclass(frozen=True)
class Kernel:
    """The kernel program and its modules (`modules/VERSION/...`)."""

    program: Path
    modules: Path


def obtain_kernel(system: Artifact) -> Kernel:
    """The kernel, fetched if it is not cached."""
    if platform.machine() != "x86_64":
        raise MachineError(f"user-mode Linux is for x86_64, and this is {platform.machine()}")
    artifact = obtain_artifact(
        "uml", hash_kernel(system.path.name), lambda stage: _fetch_kernel(stage, system.path / "tree")
    )
    return Kernel(artifact.path / "linux", artifact.path / "modules")


def hash_kernel(system_name: str) -> str:
    """Names the cached kernel; its version is whatever was the newest when it was fetched."""
    # The cache's place is part of it: it is written into the program as its loader's.
    return hash_inputs("uml 1", system_name, str(find_cache_directory()))


def _fetch_kernel(stage: Path, system: Path) -> None:
    require_programs("dpkg-deb", "patchelf")
    say("fetching user-mode Linux")
    try:
        (package,) = open_suite(stage / "apt", "sid", "amd64").download(["user-mode-linux"])
    except (MachineError, OSError) as error:
        say(f"sid's user-mode-linux cannot be had ({error}); taking this Debian's own, which is slower")
        package = _download_own(stage)
    run_tool(["dpkg-deb", "-x", str(package), str(stage / "unpacked")])
    unpacked = stage / "unpacked"
    (unpacked / "usr/lib/uml/modules").rename(stage / "modules")
    shutil.copy(unpacked / "usr/bin/linux.uml", stage / "linux")
    for name in ("unpacked", "apt"):
        shutil.rmtree(stage / name, ignore_errors=True)
    package.unlink(missing_ok=True)
    _relink_program(stage, system)


def _download_own(directory: Path) -> Path:
    run_tool(["apt-get", "download", "user-mode-linux"], directory=directory)
    found = sorted(directory.glob("user-mode-linux_*.deb"))
    if not found:
        raise MachineError("apt-get downloaded nothing")
    return found[0]


def _relink_program(stage: Path, system: Path) -> None:
    """Have the kernel use copies of the root file system's loader and C library, at their final place."""
    final = stage.with_name(stage.name.removeprefix(".stage-"))
    libraries = next(iter(sorted((system / "usr/lib").glob("x86_64-linux-gnu"))))
    for name in ("ld-linux-x86-64.so.2", "libc.so.6"):
        shutil.copy((libraries / name).resolve(), stage / name)
    run_tool(
        [
            "patchelf",
            *("--set-interpreter", str(final / "ld-linux-x86-64.so.2")),
            *("--set-rpath", str(final)),
            str(stage / "linux"),
        ]
    )
