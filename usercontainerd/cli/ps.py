"""``usercontainer ps``."""

from __future__ import annotations

import time

from usercontainerd.base.times import format_age, format_elapsed
from usercontainerd.cli.listing import parse_filters, render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, truncate, write_output
from usercontainerd.cli.selection import FILTERS, list_all
from usercontainerd.engine.containers.listing import State, select_containers
from usercontainerd.engine.containers.lookup import SHORT_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.containers.listing import Container

COMMAND_WIDTH = 20
HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
SORTS = ("command", "created", "id", "image", "names", "runningfor", "status")
PS = Verb(
    "ps",
    "",
    "List containers",
    (
        Option("-a, --all", "show all, not only those that run"),
        Option(
            "-f, --filter KIND=VALUE...",
            "show what matches: name, id, status, label, ancestor, exited, health",
            FILTERS,
        ),
        Option(
            "--format TEMPLATE",
            "a Go template such as '{{.Names}}', 'table …' with headings, or json",
            ("json",),
        ),
        Option("--external", "without effect: there are no containers of other programs"),
        Option("-n, --last NUMBER", "show the NUMBER newest, running or not"),
        Option("-l, --latest", "show the newest, running or not"),
        Option("--no-trunc", "do not shorten IDs and commands"),
        Option("--noheading", "leave out the headings"),
        Option("-q, --quiet", "print IDs only"),
        Option("--sort FIELD", f"by {', '.join(SORTS)}; the newest first by default", SORTS),
        Option("--sync", "without effect: systemd always knows"),
    ),
    most=0,
    details="Fields: .ID .Names .Image .ImageID .Command .CreatedAt .RunningFor .State .Status .Ports .Labels\n"
    '.Label "x" .Mounts .Networks .Unit .ExitCode .Definition .UpdateAvailable',
    refused={"--size": "sizes are not known yet", "-s": "sizes are not known yet"},
)


def run_ps(call: Call) -> int:
    """List containers."""
    containers = find_containers(call)
    options = call.options
    full = options.flag("no-trunc")
    headings = not options.flag("noheading")
    if options.flag("quiet"):
        write_output("".join(f"{each.id if full else each.id[:SHORT_ID]}\n" for each in containers))
        return 0
    now = time.time()
    text = options.value("format")
    if text is not None:
        fields = describe_containers(call, containers, text, now, full)
        write_output(render_format(text, fields, HEADINGS, with_headings=headings))
        return 0
    columns = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
    rows = []
    for each in containers:
        shown = describe_container(each, now, full)
        rows.append([shown[column] for column in columns])
    write_output(render_table([HEADINGS[column] for column in columns] if headings else (), rows))
    return 0


def describe_containers(
    call: Call, containers: list[Container], template: str, now: float, full: bool
) -> list[dict[str, Any]]:
    """All fields of each line; what has to be looked up only where ``template`` asks for it."""
    from usercontainerd.cli.template import parse_template

    fields = [describe_container(each, now, full) for each in containers]
    if template == "json" or parse_template(template).fields & {"UpdateAvailable", ""}:
        from usercontainerd.engine.images.newer import NewerImages

        newer = NewerImages(call.context())
        for each, shown in zip(containers, fields, strict=True):
            shown["UpdateAvailable"] = newer.has_newer(each.summary)
    return fields


def find_containers(call: Call) -> list[Container]:
    """The containers that the options ask for. Raises ``InvalidArgument``."""
    options = call.options
    filters = parse_filters(options.values("filter"))
    last = 1 if options.flag("latest") else _parse_count(options.value("last"))
    everything = options.flag("all") or last >= 0 or "status" in filters or "exited" in filters

    with call.connect() as manager:
        containers = list_all(call, manager, everything=everything)
    if filters:
        containers = select_containers(containers, filters)
    chosen = containers[:last] if last >= 0 else containers
    return sort_containers(chosen, options.value("sort") or "created")


def sort_containers(containers: list[Container], field: str) -> list[Container]:
    """Put them into the order that ``--sort`` asks for. Raises ``InvalidArgument``. Pure."""
    keys: dict[str, Callable[[Container], Any]] = {
        "command": lambda each: each.summary.command,
        "created": lambda each: -each.created,
        "id": lambda each: each.id,
        "image": lambda each: each.summary.image,
        "names": lambda each: each.name,
        "runningfor": lambda each: -each.created,
        "status": lambda each: each.state,
    }
    if field not in keys:
        from usercontainerd.base.errors import InvalidArgument

        raise InvalidArgument(f'--sort: "{field}" is not possible', hint=f"possible are {', '.join(SORTS)}")
    return sorted(containers, key=keys[field])


def _parse_count(text: str | None) -> int:
    if text is None:
        return -1
    if not text.removeprefix("-").isdecimal():
        from usercontainerd.base.errors import InvalidArgument

        raise InvalidArgument(f'--last: "{text}" is no number')
    return int(text)


def describe_container(container: Container, now: float, full: bool) -> dict[str, Any]:
    """All fields of one line, docker's and ours. ``full`` shortens nothing. Pure."""
    summary = container.summary
    command = summary.command if full else truncate(summary.command, COMMAND_WIDTH)
    return {
        "ID": container.id if full else container.id[:SHORT_ID],
        "Image": summary.image,
        "ImageID": summary.image_id if full else summary.image_id.removeprefix("sha256:")[:SHORT_ID],
        "Command": command,
        "CreatedAt": format_time(container.created),
        "RunningFor": format_age(now - container.created) if container.created else "",
        "State": container.state,
        "Status": format_status(container, now),
        "Ports": summary.ports,
        "Names": container.name,
        "Labels": ",".join(f"{name}={value}" for name, value in summary.labels),
        "Mounts": ",".join(summary.mounts),
        "Networks": summary.network,
        "Unit": f"container@{container.name}.service",
        "Health": container.health,
        "ExitCode": container.exit.status if container.exit is not None else 0,
        "Definition": summary.definition,
        "_labels": summary.labels,
    }


def format_time(seconds: float) -> str:
    """A time as docker's ``CreatedAt``; empty for an unknown one."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds)) if seconds else ""


def format_status(container: Container, now: float) -> str:
    """The status in docker's words: ``Up 3 minutes``, ``Exited (0) 2 hours ago``, ``Restarting (1) …``. Pure."""
    if container.state == State.RUNNING:
        health = f" ({container.health})" if container.health else ""
        elapsed = f" {format_elapsed(max(0.0, now - container.started))}" if container.started else ""
        return f"Up{elapsed}{health}"
    if container.state in (State.EXITED, State.RESTARTING) and container.exit is not None:
        return f"{container.state.capitalize()} ({container.exit.status}) {format_age(now - container.exit.finished)}"
    if container.state == State.INVALID:
        return "Invalid definition"
    return container.state.capitalize()


VERBS = {"ps": (PS, run_ps)}
