"""The programs that containers run on, and their versions: what a report of a fault should name."""

from __future__ import annotations

import os
import platform
import re
import subprocess

from usercontainerd.engine.host.doctor import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# As packages put them; the first that is there counts.
PROGRAMS = {
    "crun": ("/usr/bin/crun", "/usr/local/bin/crun"),
    "pasta": ("/usr/bin/pasta",),
    "systemd": ("/usr/bin/systemctl",),
}
_LIMIT = 20  # seconds
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
_VERSION = re.compile(r"^(?:crun version|pasta|systemd) (\S+)")


class Component:
    """``version`` is empty where the program does not say it, ``path`` where there is no program."""

    __slots__ = ("name", "path", "version")

    def __init__(self, name: str, version: str, path: str = "") -> None:
        self.name = name
        self.version = version
        self.path = path


def find_components(runtime_root: str) -> list[Component]:
    """The kernel, Python, and those of ``PROGRAMS`` that are installed."""
    found = [Component("kernel", os.uname().release), Component("python", platform.python_version())]
    for name, candidates in PROGRAMS.items():
        path = find_program(*candidates)
        if path is not None:
            found.append(Component(name, parse_version(ask_version(path, runtime_root)), path))
    return found


def ask_version(path: str, runtime_root: str) -> str:
    """What the program prints for ``--version``; nothing if it cannot be run."""
    # crun wants to know its directory even for that.
    environment = {**_ENVIRONMENT, "XDG_RUNTIME_DIR": runtime_root}
    return _ask(path, "--version", environment) or _ask_at_terminal(path, environment)


def ask_help(path: str) -> str:
    """What the program prints for ``--help``; nothing if it cannot be run."""
    return _ask(path, "--help", _ENVIRONMENT)


def _ask(path: str, option: str, environment: dict[str, str]) -> str:
    try:
        result = subprocess.run(
            [path, option],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_LIMIT,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout or result.stderr


def _ask_at_terminal(path: str, environment: dict[str, str]) -> str:
    # Some pasta leave by _exit(2) with the line still in their buffer, unless it is a terminal's, which has none.
    master, slave = os.openpty()
    try:
        with open(slave, "wb", buffering=0) as terminal:
            subprocess.run(
                [path, "--version"],
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=_LIMIT,
                env=environment,
            )
        return os.read(master, 4096).decode("utf-8", "replace").replace("\r\n", "\n")
    except (OSError, subprocess.TimeoutExpired):  # reading what nobody has written to is an error, too
        return ""
    finally:
        os.close(master)


def parse_version(text: str) -> str:
    """The version in what a program of ``PROGRAMS`` printed. Pure."""
    found = _VERSION.match(text)
    return found[1] if found else ""


def name_versions(components: Iterable[Component]) -> dict[str, str]:
    """Names and versions alone. Pure."""
    return {each.name: each.version for each in components}
