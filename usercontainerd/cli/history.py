"""``usercontainer history``."""

from __future__ import annotations

import time

from usercontainerd.base.sizes import format_size
from usercontainerd.base.times import format_age, parse_rfc3339
from usercontainerd.cli.listing import render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, truncate, write_output
from usercontainerd.engine.images.history import MISSING, read_history

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.images.history import HistoryStep

COMMAND_WIDTH = 45
HEADINGS = {"CreatedBy": "CREATED BY", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED"}
COLUMNS = ("ID", "Created", "CreatedBy", "Size", "Comment")
HISTORY = Verb(
    "history",
    "IMAGE",
    "Show how an image came to be",
    (
        Option(
            "--format TEMPLATE",
            "a Go template such as '{{.CreatedBy}}', 'table …' with headings, or json",
            ("json",),
        ),
        Option("-H, --human", "sizes and times for people; --human=false for exact ones"),
        Option("--no-trunc", "do not shorten IDs and commands"),
        Option("-q, --quiet", "print IDs only"),
    ),
    fewest=1,
    most=1,
    details="Fields: .ID .Created .CreatedAt .CreatedSince .CreatedBy .Size .Comment .Tags",
)


def run_history(call: Call) -> int:
    """One line for each step, the newest first."""
    options = call.options
    steps = read_history(call.context(), call.words[0])
    full = options.flag("no-trunc")
    text = options.value("format")
    if options.flag("quiet"):
        write_output("".join(f"{shorten_id(step.id, full)}\n" for step in steps))
        return 0
    if text == "json":
        from usercontainerd.cli.json_text import dump_json

        write_output(dump_json([describe_plainly(step) for step in steps], indent=4) + "\n")
        return 0
    human = options.flag("human", default=True)
    now = time.time()
    lines = [describe_step(step, now, full=full, human=human) for step in steps]
    if text is not None:
        write_output(render_format(text, lines, HEADINGS))
        return 0
    rows = [[line[column] for column in COLUMNS] for line in lines]
    write_output(render_table([HEADINGS.get(column, column.upper()) for column in COLUMNS], rows))
    return 0


def shorten_id(text: str, full: bool) -> str:
    """Twelve digits of an ID unless all are wanted."""
    return text if full or text == MISSING else text[:12]


def describe_step(step: HistoryStep, now: float, *, full: bool, human: bool) -> dict[str, Any]:
    """All fields of one line. Pure."""
    entry = step.entry
    created = parse_rfc3339(entry.created)
    since = format_age(now - created) if created else "N/A"
    command = " ".join(entry.created_by.split("\t"))
    return {
        "ID": shorten_id(step.id, full),
        "Created": since if human else entry.created,
        "CreatedAt": entry.created,
        "CreatedSince": since,
        "CreatedBy": command if full else truncate(command, COMMAND_WIDTH),
        "Size": format_size(step.size, gap="") if human else str(step.size),
        "Comment": entry.comment,
        "Tags": [] if step.image is None else [name.name for name in step.image.names],
    }


def describe_plainly(step: HistoryStep) -> dict[str, Any]:
    """One step for ``--format json``, with podman's names. Pure."""
    tags = [] if step.image is None else [name.name for name in step.image.names]
    return {
        "id": step.id,
        "created": step.entry.created,
        "Created": step.entry.created,
        "CreatedBy": step.entry.created_by,
        **({"tags": tags} if tags else {}),
        "size": step.size,
        **({"comment": step.entry.comment} if step.entry.comment else {}),
    }


VERBS = {"history": (HISTORY, run_history)}
