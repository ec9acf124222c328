"""``usercontainer images``.

The plain list is a fast path: what filters and unusual fields need is imported where they are asked for.
"""

from __future__ import annotations

import time

from usercontainerd.base.sizes import format_size
from usercontainerd.base.times import format_age, parse_rfc3339
from usercontainerd.cli.listing import parse_filters, render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_output
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.store.records import ImageRecord, NameRecord

    Line = tuple[ImageRecord, NameRecord | None]

HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Id": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedTime": "CREATED AT",
    "Size": "SIZE",
    "ReadOnly": "R/O",
    "IsReadOnly": "R/O",
    "ParentId": "PARENT ID",
    "RepoTags": "REPO TAGS",
    "RepoDigests": "REPO DIGESTS",
    "SharedSize": "SHARED SIZE",
    "VirtualSize": "VIRTUAL SIZE",
}
NONE = "<none>"
SORTS = ("created", "id", "repository", "size", "tag")
FILTERS = (
    *("before=", "since=", "until=", "label=", "reference=", "id=", "digest="),
    *(
        f"{kind}={value}"
        for kind in ("dangling", "intermediate", "manifest", "readonly", "containers")
        for value in ("true", "false")
    ),
)
IMAGES = Verb(
    "images",
    "[REPOSITORY[:TAG]]",
    "List images",
    (
        Option("-a, --all", "show intermediate images, too: nameless ones from which others were made"),
        Option("--digests", "show digests"),
        Option(
            "-f, --filter KIND=VALUE...",
            "show what matches: before, since, label, reference, until…; != for what does not",
            FILTERS,
        ),
        Option(
            "--format TEMPLATE",
            "a Go template such as '{{.Repository}}', 'table …' with headings, or json",
            ("json",),
        ),
        Option("--history", "show all names that an image had"),
        Option("--no-trunc", "do not shorten IDs"),
        Option("-n, --noheading", "leave out the headings"),
        Option("-q, --quiet", "print IDs only"),
        Option("--sort FIELD", "created (default, the newest first), id, repository, size or tag", SORTS),
    ),
    most=1,
    details="Fields: .Repository .Tag .Digest .ID .Id .Created .CreatedSince .CreatedAt .CreatedTime .Size\n"
    ".VirtualSize .SharedSize .Names .RepoTags .RepoDigests .History .Labels .Containers .ParentId\n"
    ".IsDangling .IsReadOnly",
)


def run_images(call: Call) -> int:
    """List images, one line for each name."""
    options = call.options
    full = options.flag("no-trunc")
    text = options.value("format")
    lines = sort_lines(find_lines(call), options.value("sort") or "created")
    headings = not options.flag("noheading")
    if options.flag("quiet"):
        shown = dict.fromkeys(str(record.id) if full else record.short_id for record, _ in lines)
        write_output("".join(f"{each}\n" for each in shown))
    elif text is not None:
        from usercontainerd.cli.image_fields import describe_images, describe_lines

        if text == "json":
            write_output(render_format(text, describe_images(call, lines), HEADINGS))
        else:
            fields = describe_lines(call, lines, text, full)
            write_output(render_format(text, fields, HEADINGS, with_headings=headings))
    else:
        write_output(render_lines(call, lines, full, headings))
    return 0


def render_lines(call: Call, lines: Sequence[Line], full: bool, headings: bool) -> str:
    """The plain table."""
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if call.options.flag("digests"):
        columns.insert(2, "Digest")
    names = [HEADINGS[column] for column in columns]
    now = time.time()
    described = [describe_name(record, name, now, full) for record, name in lines]
    rows = [[line[column] for column in columns] for line in described]
    if call.options.flag("history"):
        names.append("HISTORY")
        for row, (record, _) in zip(rows, lines, strict=True):
            row.append(", ".join(record.name_history))
    return render_table(names if headings else (), rows)


def find_lines(call: Call) -> list[Line]:
    """The images that the options ask for, once for each name. Raises ``InvalidArgument``, ``NoSuchImage``."""
    options = call.options
    images = ImageStore(Store(call.paths))
    records = [*images.all(), *list_indexes(images)]
    filters = parse_filters(options.values("filter"))
    patterns = [*filters.get("reference", ()), *call.words]
    if filters:
        from usercontainerd.cli.image_fields import find_users_of_call
        from usercontainerd.engine.images.filters import ImageFilters

        if patterns:
            filters["reference"] = patterns
        test = ImageFilters(call.context(), records, lambda: find_users_of_call(call)).build(filters)
        records = [record for record in records if test(record)]
    elif not options.flag("all"):
        records = drop_intermediate(images, records)
    lines: list[Line] = []
    for record in records:
        names = choose_names(record, patterns)
        lines += [(record, name) for name in names or ((None,) if not patterns else ())]
        if filters and not names and patterns:  # found by something else than these names
            lines += [(record, name) for name in record.names or (None,)]
    return lines or find_by_id(images, call.words)


def list_indexes(images: ImageStore) -> list[ImageRecord]:
    """The indexes (manifest lists) that are made here; they share the list with images."""
    if not images.store.has_indexes():
        return []
    from usercontainerd.engine.images.indexes import describe_indexes

    return describe_indexes(images)


def choose_names(record: ImageRecord, patterns: Sequence[str]) -> Sequence[NameRecord]:
    """Those of an image's names that any of the patterns means; all if there is none."""
    if not patterns:
        return record.names
    from usercontainerd.oci.patterns import is_named

    return [name for name in record.names if any(is_named(name.name, pattern) for pattern in patterns)]


def find_by_id(images: ImageStore, words: Sequence[str]) -> list[Line]:
    """What an argument means that is no name in the list: the beginning of an ID, or a digest."""
    from usercontainerd.base.errors import InvalidReference

    for word in words:
        try:
            record = images.find(word)
        except InvalidReference:
            continue
        if record is not None:
            return [(record, name) for name in record.names or (None,)]
    return []


def drop_intermediate(images: ImageStore, records: list[ImageRecord]) -> list[ImageRecord]:
    """Leave out nameless images from which others were made."""
    if all(record.names for record in records):
        return records
    from usercontainerd.engine.images.family import ImageFamily

    family = ImageFamily(images, records)
    return [record for record in records if not family.is_intermediate(record)]


def sort_lines(lines: list[Line], field: str) -> list[Line]:
    """Put lines into the order that ``--sort`` asks for. Raises ``InvalidArgument``. Pure."""
    keys: dict[str, Callable[[Line], Any]] = {
        "created": lambda line: -parse_rfc3339(line[0].created),
        "id": lambda line: line[0].id,
        "repository": lambda line: split_name(line[1]),
        "size": lambda line: line[0].size,
        "tag": lambda line: split_name(line[1])[1],
    }
    if field not in keys:
        from usercontainerd.base.errors import InvalidArgument

        raise InvalidArgument(f'--sort: "{field}" is not possible', hint=f"possible are {', '.join(SORTS)}")
    return sorted(lines, key=keys[field])


def split_name(name: NameRecord | None) -> tuple[str, str]:
    """Repository and tag as a list shows them. Pure."""
    if name is None:
        return NONE, NONE
    reference = name.reference
    return reference.name, reference.tag or NONE


def choose_digest(record: ImageRecord, name: NameRecord | None) -> str:
    """The digest by which an image's repository knows it best: of the index that led to it, if there was one. Pure."""
    if name is None:
        return str(record.manifest)
    return str(name.reference.digest or (name.digests[0] if name.digests else record.manifest))


def describe_name(record: ImageRecord, name: NameRecord | None, now: float, full: bool) -> dict[str, Any]:
    """The fields of a line of the plain list. Pure."""
    created = parse_rfc3339(record.created)
    repository, tag = split_name(name)
    return {
        "Repository": repository,
        "Tag": tag,
        "Digest": choose_digest(record, name),
        "ID": str(record.id) if full else record.short_id,
        "CreatedSince": format_age(now - created) if created else "N/A",
        "Size": format_size(record.size),
    }


VERBS = {"images": (IMAGES, run_images)}
