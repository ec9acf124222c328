"""``usercontainer export``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

EXPORT = Verb(
    "export",
    "CONTAINER",
    "Write a container's root file system as a tar archive",
    (Option("-o, --output FILE", "the file; standard output without it"),),
    fewest=1,
    most=1,
    details="Running or not. Volumes and other mounts are not part of it. `usercontainer import` makes an image of it.",
)


def run_export(call: Call) -> int:
    """Write the archive."""
    from usercontainerd.engine.containers.exporting import export_container
    from usercontainerd.engine.containers.lookup import resolve_name

    path = call.options.value("output")
    if path == "-":
        path = None
    if path is None and os.isatty(1):
        raise InvalidArgument("standard output is a terminal", hint="use -o FILE, or redirect the output")
    catch_termination("the export was stopped")
    name = resolve_name(call.paths, call.words[0])
    for warning in export_container(call.context(), name, path=path):
        write_error(f"Warning: {warning}\n")
    return 0


VERBS = {"export": (EXPORT, run_export)}
