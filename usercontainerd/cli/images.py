"""``usercontainer images``."""

from __future__ import annotations

import time

from usercontainerd.base.sizes import format_size
from usercontainerd.base.times import format_age
from usercontainerd.cli.listing import render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_output
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.store.images import ImageRecord, NameRecord

HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
NONE = "<none>"
IMAGES = Verb(
    "images",
    "[REPOSITORY[:TAG]]",
    "List images",
    (
        Option("-a, --all", "show all (there are no intermediate images)"),
        Option("--digests", "show digests"),
        Option(
            "--format TEMPLATE", "a Go template such as '{{.Repository}}', 'table …' with headings, or json"
        ),
        Option("--no-trunc", "do not shorten IDs"),
        Option("--noheading", "leave out the headings"),
        Option("-q, --quiet", "print IDs only"),
    ),
    most=1,
    details="Fields: .Repository .Tag .Digest .ID .CreatedSince .CreatedAt .Size .VirtualSize .Names",
    refused={"--filter": "not possible yet", "-f": "not possible yet"},
)


def run_images(call: Call) -> int:
    """List images, one line for each name."""
    options = call.options
    full = options.flag("no-trunc")
    records = ImageStore(Store(call.paths)).all()
    now = time.time()
    lines = [describe_name(record, name, now, full) for record in records for name in record.names or (None,)]
    if call.words:
        lines = [line for line in lines if is_meant(line, call.words[0])]
    if options.flag("quiet"):
        write_output("".join(f"{each}\n" for each in dict.fromkeys(line["ID"] for line in lines)))
        return 0
    headings = not options.flag("noheading")
    text = options.value("format")
    if text is not None:
        write_output(render_format(text, lines, HEADINGS, with_headings=headings))
        return 0
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if options.flag("digests"):
        columns.insert(2, "Digest")
    rows = [[line[column] for column in columns] for line in lines]
    write_output(render_table([HEADINGS[column] for column in columns] if headings else (), rows))
    return 0


def describe_name(record: ImageRecord, name: NameRecord | None, now: float, full: bool) -> dict[str, Any]:
    """All fields of one line. Pure."""
    created = parse_created(record.created)
    repository, tag = NONE, NONE
    digest = str(record.manifest)
    if name is not None:
        reference = name.reference
        repository, tag = reference.name, reference.tag or NONE
        digest = str(reference.digest or (name.digests[0] if name.digests else digest))
    return {
        "Repository": repository,
        "Tag": tag,
        "Digest": digest,
        "ID": str(record.id) if full else record.short_id,
        "CreatedSince": format_age(now - created) if created else "N/A",
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(created)) if created else "N/A",
        "Size": format_size(record.size),
        "VirtualSize": format_size(record.size),
        "Names": [each.name for each in record.names],
    }


def parse_created(text: str) -> float:
    """Return the time of an image's ``created`` (RFC 3339) in seconds since the epoch, 0 if there is none."""
    try:
        # What strptime or datetime would do, without importing them. UTC is what all builders write.
        date, _, clock = text.partition("T")
        year, month, day = map(int, date.split("-"))
        hour, minute, second = map(int, clock[:8].split(":"))
    except ValueError:
        return 0.0
    if not (clock.endswith("Z") or clock[8:].lstrip(".0123456789") in ("Z", "+00:00")):
        return parse_with_zone(text)
    import calendar

    return float(calendar.timegm((year, month, day, hour, minute, second)))


def parse_with_zone(text: str) -> float:
    """The same for a time with an offset."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def is_meant(line: dict[str, Any], text: str) -> bool:
    """Tell whether the argument names this line's repository, with or without its tag, registry or ``library/``."""
    repository, tag = str(line["Repository"]), str(line["Tag"])
    wanted, _, wanted_tag = text.rpartition(":") if ":" in text.rpartition("/")[2] else (text, "", "")
    return (not wanted_tag or wanted_tag == tag) and (
        repository == wanted or repository.endswith(f"/{wanted}")
    )


VERBS = {"images": (IMAGES, run_images)}
