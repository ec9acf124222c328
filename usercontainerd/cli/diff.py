"""``usercontainer diff`` and ``image diff``."""

from __future__ import annotations

import os
from itertools import islice

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usercontainerd.cli.call import Call
    from usercontainerd.store.outputs import Change

AT_ONCE = 500  # lines; there may be a hundred thousand
KINDS = {"C": "changed", "A": "added", "D": "deleted"}  # the letters, and podman's names in JSON
FORMAT = Option("--format FORMAT", "json", ("json",))
IMAGE_DIFF = Verb(
    "image diff",
    "IMAGE [IMAGE]",
    "Show what an image's top layer changes, or how two images differ",
    (FORMAT,),
    fewest=1,
    most=2,
    details="A: added, C: changed, D: deleted",
)
DIFF = Verb(
    "diff",
    "NAME",
    "Show what a container has changed of its image's files",
    (FORMAT,),
    fewest=1,
    most=1,
    details="A: added, C: changed, D: deleted. Volumes and other mounts are not looked into. Of a name that no\n"
    "container has, it is the image of that name: see `usercontainer image diff`.",
)


def run_image_diff(call: Call) -> int:
    """Print a line for each path, or one object."""
    from usercontainerd.engine.images.differences import list_image_changes

    other = call.words[1] if len(call.words) > 1 else None
    return print_changes(call, lambda: list_image_changes(call.context(), call.words[0], other))


def run_diff(call: Call) -> int:
    """The same for a container."""
    from usercontainerd.base.errors import NoSuchContainer
    from usercontainerd.engine.containers.differences import list_container_changes
    from usercontainerd.engine.containers.lookup import resolve_name

    try:
        name = resolve_name(call.paths, call.words[0])
    except NoSuchContainer as error:
        from usercontainerd.engine.images.local import find_image

        if find_image(call.context(), call.words[0]) is None:
            raise error
        return run_image_diff(call)
    return print_changes(call, lambda: list_container_changes(call.context(), name))


def print_changes(call: Call, find: Callable[[], Iterator[Change]]) -> int:
    """Print them as ``--format`` says."""
    kind = call.options.value("format")
    if kind not in (None, "json"):
        raise InvalidArgument(f'--format: "{kind}" is not possible', hint="possible is json")
    changes = find()
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


VERBS = {"diff": (DIFF, run_diff), "image diff": (IMAGE_DIFF, run_image_diff)}
