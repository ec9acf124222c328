"""Layers over the root file system that only some machines have: Debian packages, and what makes them ready to use.

Only the machines that are asked for one have it, and nobody else pays. The packages are unpacked, not installed; what
their scripts would do that matters here is done in a chroot over both.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from machinelib import syscalls
from machinelib.apt import open_suite, run_tool
from machinelib.cache import Artifact, obtain_artifact, say
from machinelib.hosttools import MachineError
from machinelib.recipe import hash_inputs
from machinelib.syscalls import MountFlag


@dataclass(frozen=True)
class AddOn:
    """A layer's name, packages and finishing commands."""

    kind: str
    packages: tuple[str, ...]
    # What the packages need and nobody will miss.
    without: tuple[str, ...]
    # Shell commands, run by root in the new layer over the system.
    commands: tuple[str, ...]


def obtain_add_on(add_on: AddOn, system: Artifact, suite: str) -> Artifact:
    """The layer (in `tree` of the artifact), built if it is not cached; `suite` is the root file system's."""
    build = partial(_build_add_on, add_on=add_on, system=system.path / "tree", suite=suite)
    return obtain_artifact(add_on.kind, hash_add_on(add_on, system.path.name), build)


def hash_add_on(add_on: AddOn, system: str) -> str:
    """Changes with the packages, with what is done to them, and with what lies below (the artifact's name)."""
    return hash_inputs("add-on 1", system, add_on.packages, add_on.without, add_on.commands)


def name_add_on(add_on: AddOn, system: str) -> str:
    """The artifact's name."""
    return f"{add_on.kind}-{hash_add_on(add_on, system)}"


def _build_add_on(stage: Path, add_on: AddOn, system: Path, suite: str) -> None:
    if os.geteuid() != 0:
        raise MachineError(f"building the {add_on.kind} layer needs root (once)")
    say(f"building the {add_on.kind} layer (half a minute, then cached)")
    unpack_packages(stage, system, suite, add_on.packages, add_on.without)
    _run_commands(stage, add_on, system)


def unpack_packages(
    stage: Path, system: Path, suite: str, packages: tuple[str, ...], without: tuple[str, ...]
) -> Path:
    """Unpack packages of a suite, with what they need and `system` has not, into `tree` of the stage; that tree."""
    status = system / "var/lib/dpkg/status"
    architecture = run_tool(["dpkg", "--print-architecture"]).strip()
    apt = open_suite(stage / "apt", suite, architecture, str(status))
    tree = stage / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    for package in apt.download(apt.plan_closure(packages, without)):
        run_tool(["dpkg-deb", "--extract", str(package), str(tree)])
    shutil.rmtree(apt.directory)
    return tree


def _run_commands(stage: Path, add_on: AddOn, system: Path) -> None:
    """Run the commands in a chroot over both layers, in a child, and keep what they wrote."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _run_in_overlay(stage, add_on.commands, system)
            status = 0
        except (OSError, MachineError, shutil.Error) as error:
            say(f"the {add_on.kind} layer: {error}")
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise MachineError(f"the {add_on.kind} layer could not be finished")


def _run_in_overlay(stage: Path, commands: tuple[str, ...], system: Path) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
    # In memory: what is an overlay itself cannot be the upper layer of another.
    work = stage / "work"
    work.mkdir()
    syscalls.mount("tmpfs", str(work), "tmpfs", data="mode=0755")
    # Relative names from here, so that no character of a path can matter to overlay's option syntax.
    os.chdir(work)
    for name, layer in (("lower0", stage / "tree"), ("lower1", system)):
        os.mkdir(name)
        syscalls.mount(str(layer), name, flags=MountFlag.BIND)
    for name in ("upper", "overlay", "root"):
        os.mkdir(name, 0o755)
    data = "lowerdir=lower0:lower1,upperdir=upper,workdir=overlay"
    syscalls.mount("overlay", "root", "overlay", data=data)
    for command in commands:
        run_tool(["chroot", "root", "sh", "-ec", command])
    shutil.copytree("upper", stage / "tree", symlinks=True, dirs_exist_ok=True)
