"""``usercontainer system df``."""

from __future__ import annotations

import time

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.sizes import format_size
from usercontainerd.base.times import format_elapsed, parse_rfc3339
from usercontainerd.cli.images import split_name
from usercontainerd.cli.listing import render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, truncate, write_output
from usercontainerd.engine.containers.lookup import SHORT_ID
from usercontainerd.engine.disk_usage import measure_usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.disk_usage import DiskUsage, Total

COMMAND_WIDTH = 20
HEADINGS = {name: name.upper() for name in ("Type", "Total", "Active", "Size", "Reclaimable")}
IMAGE_COLUMNS = (
    "REPOSITORY",
    "TAG",
    "IMAGE ID",
    "CREATED",
    "SIZE",
    "SHARED SIZE",
    "UNIQUE SIZE",
    "CONTAINERS",
)
CONTAINER_COLUMNS = (
    "CONTAINER ID",
    "IMAGE",
    "COMMAND",
    "LOCAL VOLUMES",
    "SIZE",
    "CREATED",
    "STATUS",
    "NAMES",
)
VOLUME_COLUMNS = ("VOLUME NAME", "LINKS", "SIZE")
DF = Verb(
    "system df",
    "",
    "Show what images, containers and volumes take on disk",
    (
        Option(
            "--format TEMPLATE",
            "a Go template such as '{{.Type}}', 'table …' with headings, or json",
            ("json",),
        ),
        Option("-v, --verbose", "each image, container and volume"),
    ),
    most=0,
    details="Fields: .Type .Total .Active .Size .Reclaimable .RawSize .RawReclaimable",
)


def run_df(call: Call) -> int:
    """Print the overview, or everything."""
    text = call.options.value("format")
    verbose = call.options.flag("verbose")
    if verbose and text is not None:
        raise InvalidArgument("--format and --verbose do not go together")
    usage = measure_usage(call.context(), call.find_manager())
    if verbose:
        write_output(render_usage(usage, time.time()))
        return 0
    totals = [describe_total(each) for each in usage.sum_up()]
    if text is not None:
        write_output(render_format(text, totals, HEADINGS))
        return 0
    rows = [[str(total[column]) for column in HEADINGS] for total in totals]
    write_output(render_table(list(HEADINGS.values()), rows))
    return 0


def describe_total(total: Total) -> dict[str, Any]:
    """All fields of a line of the overview. Pure."""
    part = round(100 * total.reclaimable / total.size) if total.size else 0
    return {
        "Type": total.kind,
        "Total": total.count,
        "Active": total.active,
        "Size": show_size(total.size),
        "Reclaimable": f"{show_size(total.reclaimable)} ({part}%)",
        "RawSize": total.size,
        "RawReclaimable": total.reclaimable,
        "TotalCount": total.count,
    }


def show_size(size: int) -> str:
    """A size as this verb shows it. Pure."""
    return format_size(size, digits=4, gap="")


def render_usage(usage: DiskUsage, now: float) -> str:
    """Everything, in three tables. Pure."""
    images = []
    for image in usage.images:
        record = image.record
        created = parse_rfc3339(record.created)
        rest = [
            record.short_id,
            format_elapsed(max(0.0, now - created)) if created else "N/A",
            show_size(image.shared + image.unique),
            show_size(image.shared),
            show_size(image.unique),
            str(image.containers),
        ]
        images += [[*split_name(name), *rest] for name in record.names or (None,)]
    containers = [
        [
            each.container.id[:SHORT_ID],
            each.container.summary.image_id.removeprefix("sha256:")[:SHORT_ID],
            truncate(each.container.summary.command, COMMAND_WIDTH),
            str(each.volumes),
            show_size(each.size),
            format_elapsed(max(0.0, now - each.container.created)) if each.container.created else "",
            each.container.state,
            each.container.name,
        ]
        for each in usage.containers
    ]
    volumes = [[each.name, str(each.links), show_size(each.size)] for each in usage.volumes]
    return (
        "Images space usage:\n\n"
        + render_table(IMAGE_COLUMNS, images)
        + "\nContainers space usage:\n\n"
        + render_table(CONTAINER_COLUMNS, containers)
        + "\nLocal Volumes space usage:\n\n"
        + render_table(VOLUME_COLUMNS, volumes)
    )


VERBS = {"system df": (DF, run_df)}
