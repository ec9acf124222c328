"""``usercontainer inspect``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, NoSuchContainer, NoSuchImage, UsercontainerError
from usercontainerd.cli.json_text import dump_json
from usercontainerd.cli.listing import escape_lines
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.containers.inspection import inspect_container
from usercontainerd.engine.containers.lookup import resolve_name
from usercontainerd.engine.images.inspection import inspect_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager

FAILED = 1  # docker's status when one of several objects is missing
INSPECT = Verb(
    "inspect",
    "NAME [NAME...]",
    "Show everything about containers or images, as JSON",
    (
        Option("-f, --format TEMPLATE", "a Go template such as '{{.State.Pid}}', or json", ("json",)),
        Option(
            "-t, --type TYPE",
            "container or image; both are looked for by default, containers first",
            ("container", "image"),
        ),
    ),
    fewest=1,
    refused={"--size": "sizes are not known yet", "-s": "sizes are not known yet"},
)


IMAGE_INSPECT = Verb(
    "image inspect",
    "IMAGE [IMAGE...]",
    "Show everything about images, as JSON",
    (Option("-f, --format TEMPLATE", "a Go template such as '{{.Config.Env}}', or json", ("json",)),),
    fewest=1,
)


CONTAINER_INSPECT = Verb(
    "container inspect",
    "CONTAINER [CONTAINER...]",
    "Show everything about containers, as JSON",
    (Option("-f, --format TEMPLATE", "a Go template such as '{{.State.Pid}}', or json", ("json",)),),
    fewest=1,
    refused=INSPECT.refused,
)


def run_inspect(call: Call) -> int:
    """Print an array of objects, or what the template makes of each."""
    kind = "container" if call.verb == CONTAINER_INSPECT.name else call.options.value("type") or "all"
    if kind not in ("all", "container", "image"):
        raise InvalidArgument(f'--type: "{kind}" is not possible', hint="possible are container and image")
    context = call.context()
    found = []
    status = 0
    with call.connect() as manager:
        for word in call.words:
            try:
                found.append(find_object(call, context, manager, word, kind))
            except UsercontainerError as error:
                write_error(f"Error: {error}\n")
                status = FAILED
    show_objects(found, call.options.value("format"))
    return status


def run_image_inspect(call: Call) -> int:
    """The same for images alone, with podman's status for one that is missing."""
    context = call.context()
    found = []
    status = 0
    for word in call.words:
        try:
            image = inspect_image(context, word)
            if image is None:
                raise NoSuchImage(f'no such image "{word}"')
            found.append(image)
        except UsercontainerError as error:
            write_error(f"Error: {error}\n")
            status = error.exit_status
    show_objects(found, call.options.value("format"))
    return status


def show_objects(found: list[dict[str, Any]], text: str | None) -> None:
    """Print an array of objects, or what the template makes of each."""
    if text is None or text == "json":
        write_output(dump_json(found, indent=4) + "\n")
        return
    from usercontainerd.cli.template import parse_template

    template = parse_template(text)
    for each in found:
        write_output(f"{escape_lines(template.render(each))}\n")


def find_object(call: Call, context: Context, manager: Manager, word: str, kind: str) -> dict[str, Any]:
    """The container or image of that name. Raises ``NoSuchContainer``."""
    if kind in ("all", "container"):
        try:
            return inspect_container(context, manager, resolve_name(call.paths, word))
        except NoSuchContainer:
            if kind == "container":
                raise
    image = inspect_image(context, word)
    if image is None:
        what = "image" if kind == "image" else "container or image"
        raise NoSuchContainer(f'no such {what} "{word}"')
    return image


VERBS = {
    "container inspect": (CONTAINER_INSPECT, run_inspect),
    "image inspect": (IMAGE_INSPECT, run_image_inspect),
    "inspect": (INSPECT, run_inspect),
}
