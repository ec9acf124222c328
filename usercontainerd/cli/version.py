"""``usercontainer version``."""

from __future__ import annotations

from usercontainerd import __version__
from usercontainerd.cli.options import Verb
from usercontainerd.cli.output import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call


def run_version(_call: Call) -> int:
    """Print name and version."""
    write_output(f"usercontainer version {__version__}\n")
    return 0


VERBS = {"version": (Verb("version", "", "Show the version", most=0), run_version)}
