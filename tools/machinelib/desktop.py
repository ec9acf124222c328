"""What a desktop has and a server has not: GTK 4 with libadwaita, PyGObject, an X server without a screen.

A layer over the root file system: only the machines that are asked for it have it, and nobody else pays. The packages
are unpacked, not installed; what their scripts would do that matters here is done in a chroot over both.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from machinelib import syscalls
from machinelib.apt import open_suite, run_tool
from machinelib.cache import Artifact, obtain_artifact, say
from machinelib.hosttools import MachineError
from machinelib.recipe import hash_inputs
from machinelib.syscalls import MountFlag

KIND = "desktop"

_PACKAGES = (
    *("gir1.2-gtk-4.0", "gir1.2-adw-1", "adwaita-icon-theme", "librsvg2-common"),
    *("fonts-cantarell", "fonts-dejavu-core", "xvfb"),
    *("at-spi2-core", "gir1.2-atspi-2.0"),
    *("python3-gi", "libglib2.0-bin", "python3-dasbus"),
)
# A software renderer for OpenGL, of which Xvfb has a need on paper only: more than half of all the bytes.
_NOT_NEEDED = ("mesa-libgallium", "libllvm19", "libz3-4")

# Nothing moves, so that a picture of a window is the same every time.
_SETTINGS = "[Settings]\\ngtk-font-name=Cantarell 11\\ngtk-enable-animations=false\\n"

# What the triggers of these packages make. Fonts are looked at now, so that no program does at its start.
_COMMANDS = (
    "glib-compile-schemas /usr/share/glib-2.0/schemas",
    "update-mime-database /usr/share/mime",
    "$(ls /usr/lib/*/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders) --update-cache",
    "fc-cache --system-only",
    "ldconfig -X",
    f"mkdir -p /etc/gtk-4.0 && printf '{_SETTINGS}' > /etc/gtk-4.0/settings.ini",
)


def obtain_desktop(system: Artifact, suite: str) -> Artifact:
    """The layer (in `tree` of the artifact), built if it is not cached; `suite` is the root file system's."""
    build = partial(_build_desktop, system=system.path / "tree", suite=suite)
    return obtain_artifact(KIND, hash_desktop(system), build)


def hash_desktop(system: Artifact | str) -> str:
    """Changes with the packages, with what is done to them, and with what lies below."""
    name = system if isinstance(system, str) else system.path.name
    return hash_inputs("desktop 1", name, _PACKAGES, _NOT_NEEDED, _COMMANDS)


def _build_desktop(stage: Path, system: Path, suite: str) -> None:
    if os.geteuid() != 0:
        raise MachineError("building the desktop layer needs root (once)")
    say("building the desktop layer (half a minute, then cached)")
    status = system / "var/lib/dpkg/status"
    architecture = run_tool(["dpkg", "--print-architecture"]).strip()
    apt = open_suite(stage / "apt", suite, architecture, str(status))
    tree = stage / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    for package in apt.download(apt.plan_closure(_PACKAGES, _NOT_NEEDED)):
        run_tool(["dpkg-deb", "--extract", str(package), str(tree)])
    shutil.rmtree(apt.directory)
    _run_triggers(stage, system)


def _run_triggers(stage: Path, system: Path) -> None:
    """Run the commands in a chroot over both layers, in a child, and keep what they wrote."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _run_in_overlay(stage, system)
            status = 0
        except (OSError, MachineError, shutil.Error) as error:
            say(f"the desktop layer: {error}")
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise MachineError("the desktop layer could not be finished")


def _run_in_overlay(stage: Path, system: Path) -> None:
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
    for command in _COMMANDS:
        run_tool(["chroot", "root", "sh", "-ec", command])
    shutil.copytree("upper", stage / "tree", symlinks=True, dirs_exist_ok=True)
