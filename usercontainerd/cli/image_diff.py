"""``usercontainer image diff``."""

from __future__ import annotations

import os
from itertools import islice

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.store.outputs import Change

AT_ONCE = 500  # lines; there may be a hundred thousand
KINDS = {"C": "changed", "A": "added", "D": "deleted"}  # the letters, and podman's names in JSON
DIFF = Verb(
    "image diff",
    "IMAGE [IMAGE]",
    "Show what an image's top layer changes, or how two images differ",
    (Option("--format FORMAT", "json", ("json",)),),
    fewest=1,
    most=2,
    details="A: added, C: changed, D: deleted",
)


def run_diff(call: Call) -> int:
    """Print a line for each path, or one object."""
    from usercontainerd.engine.image_changes import list_image_changes

    kind = call.options.value("format")
    if kind not in (None, "json"):
        raise InvalidArgument(f'--format: "{kind}" is not possible', hint="possible is json")
    other = call.words[1] if len(call.words) > 1 else None
    changes = list_image_changes(call.context(), call.words[0], other)
    if kind is None:
        while lines := [render_change(change) for change in islice(changes, AT_ONCE)]:
            write_output("".join(lines))
        return 0
    from usercontainerd.cli.json_text import dump_json

    found: dict[str, list[str]] = {}
    for change in changes:
        found.setdefault(KINDS[change.kind], []).append(os.fsdecode(change.path))
    write_output(dump_json({name: found[name] for name in KINDS.values() if name in found}, indent=4) + "\n")
    return 0


def render_change(change: Change) -> str:
    """One line. Pure."""
    return f"{change.kind} {printable(os.fsdecode(change.path))}\n"


VERBS = {"image diff": (DIFF, run_diff)}
