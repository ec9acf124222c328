"""Where this project's own programs lie: in the checkout, or in the prefix that this copy was installed below.

One rule for every way to install: a package in ``PREFIX/lib/python3.x/site-packages`` has its programs in
``PREFIX/libexec/usercontainerd`` and its command in ``PREFIX/bin``. PREFIX is ``/usr`` for a distribution's package,
``/usr/local`` or ``~/.local`` for pip, or a virtual environment.
"""

from __future__ import annotations

import os

PACKAGE = "usercontainerd"
SHIPPED = "shipped"  # below the package in a wheel: what a checkout has at its top
SYSTEM_PREFIX = "/usr"
LIBEXEC = "libexec/usercontainerd"  # below a prefix
_SITES = ("site-packages", "dist-packages")
_LIBRARIES = ("lib", "lib64")


class Programs:
    """Absolute paths of the programs that units and the engine run; ``directory`` holds all of them."""

    __slots__ = ("directory",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @property
    def command(self) -> str:
        """The command ``usercontainer``: ``bin`` lies beside ``libexec``."""
        return f"{self.directory.removesuffix('/usercontainerd').removesuffix('/libexec')}/bin/usercontainer"

    @property
    def launch(self) -> str:
        """ExecStart= of a container's unit."""
        return f"{self.directory}/launch"

    @property
    def cleanup(self) -> str:
        """ExecStopPost= of a container's unit."""
        return f"{self.directory}/cleanup"

    @property
    def prepare(self) -> str:
        """Pulls the image if need be and writes the bundle; run by ``launch``."""
        return f"{self.directory}/prepare"

    @property
    def renew_unit(self) -> str:
        """Writes the unit of one definition anew."""
        return f"{self.directory}/renew-unit"

    @property
    def check_health(self) -> str:
        """Checks the health of a container once; run by a unit of its own."""
        return f"{self.directory}/check-health"

    @property
    def write_units(self) -> str:
        """Writes the units of all definitions, where systemd has no generator for that."""
        return f"{self.directory}/write-units"

    @property
    def unpack_layer(self) -> str:
        """Unpacks one layer inside the user namespace."""
        return f"{self.directory}/unpack-layer"

    @property
    def copy_files(self) -> str:
        """Reads or writes files of a container, inside its namespaces."""
        return f"{self.directory}/copy-files"

    @property
    def inspect_root(self) -> str:
        """Looks up a user in an image, inside the user namespace."""
        return f"{self.directory}/inspect-root"


def find_top(package: str = __file__) -> str:
    """Return the directory that this copy of the package lies in: a checkout, or one of ``sys.path``."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(package))))


def is_checkout(top: str) -> bool:
    """Tell whether ``top`` is a checkout, with the programs beside the package."""
    return os.path.exists(f"{top}/libexec/launch")


def find_prefix(top: str) -> str | None:
    """Return the prefix of ``PREFIX/lib/python3.x/site-packages``; None: Python packages do not lie so. Pure."""
    python, site = os.path.split(top)
    library, version = os.path.split(python)
    prefix, name = os.path.split(library)
    if site in _SITES and version.startswith("python") and name in _LIBRARIES:
        return prefix
    return None


def list_places(source: str, target: str, package: str = __file__) -> tuple[str, ...]:
    """Return the directories where files of this very copy may lie, the first that has them first.

    They are a checkout's or a wheel's ``source``, or ``target`` below the prefix. Pure.
    """
    top = find_top(package)
    shipped = f"{top}/{PACKAGE}/{SHIPPED}/{source}"
    return f"{top}/{source}", shipped, f"{find_prefix(top) or SYSTEM_PREFIX}/{target}"


def find_programs(package: str = __file__) -> Programs:
    """Find the programs of this very copy of the package: a checkout's ``libexec``, else those of its prefix."""
    top = find_top(package)
    if is_checkout(top):
        return Programs(f"{top}/libexec")
    return Programs(f"{find_prefix(top) or SYSTEM_PREFIX}/{LIBEXEC}")
