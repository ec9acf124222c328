"""Where this project's own helper programs lie: beside each other, in the checkout or in /usr/libexec."""

from __future__ import annotations

import os

INSTALLED = "/usr/libexec/usercontainerd"


class Programs:
    """Absolute paths of the programs that units and the engine run; ``directory`` holds all of them."""

    __slots__ = ("directory",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @property
    def command(self) -> str:
        """The command ``usercontainer``."""
        top = os.path.dirname(self.directory)
        return "/usr/bin/usercontainer" if self.directory == INSTALLED else f"{top}/bin/usercontainer"

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
    def unpack_layer(self) -> str:
        """Unpacks one layer inside the user namespace."""
        return f"{self.directory}/unpack-layer"

    @property
    def inspect_root(self) -> str:
        """Looks up a user in an image, inside the user namespace."""
        return f"{self.directory}/inspect-root"


def find_programs(package: str = __file__) -> Programs:
    """Find the programs of this very copy of the package: a checkout's ``libexec``, else the installed ones."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(package))))
    checkout = f"{top}/libexec"
    return Programs(checkout if os.path.exists(f"{checkout}/launch") else INSTALLED)
