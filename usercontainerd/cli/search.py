"""``usercontainer search``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.cli.listing import render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_error, write_output
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, read_access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.registries.searching import SearchResult

HEADINGS = {
    "Index": "INDEX",
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "Stars": "STARS",
    "Official": "OFFICIAL",
    "Automated": "AUTOMATED",
    "Tag": "TAG",
}
_WIDTH = 44  # of a description, as podman cuts it
_OK = "[OK]"
SEARCH = Verb(
    "search",
    "TERM",
    "Search registries for images",
    (
        *ACCESS_OPTIONS,
        Option("--compatible", "show stars, official and automated too, as docker does"),
        Option(
            "-f, --filter KIND=VALUE...",
            "show what matches: stars=N, is-official, is-automated[=false]",
            ("stars=", "is-official", "is-automated"),
        ),
        Option(
            "--format TEMPLATE",
            "a Go template such as '{{.Name}}', 'table …' with headings, or json",
            ("json",),
        ),
        Option("--limit NUMBER", "at most so many of each registry; 25, or all tags, by default"),
        Option("--list-tags", "list the tags of the repository TERM"),
        Option("--no-trunc", "do not shorten descriptions"),
    ),
    fewest=1,
    most=1,
    details="TERM may begin with a registry: quay.io/podman; REGISTRY/ means all that it has. Without one, the\n"
    "unqualified-search-registries of registries.conf(5) are searched.\n"
    "Fields: .Index .Name .Description .Stars .Official .Automated .Tag",
)


def run_search(call: Call) -> int:
    """Search, or list tags."""
    if call.options.flag("list-tags"):
        return list_tags(call)
    from usercontainerd.engine.registries.searching import DEFAULT_LIMIT, parse_search_filter, search_images

    results = search_images(
        call.context(),
        call.words[0],
        limit=read_limit(call) or DEFAULT_LIMIT,
        wanted=parse_search_filter(call.options.values("filter")),
        access=read_access(call),
        notice=write_notice,
    )
    text = call.options.value("format")
    lines = [describe_result(each, full=call.options.flag("no-trunc") or text == "json") for each in results]
    if text is not None:
        write_output(render_format(text, lines, HEADINGS))
        return 0
    columns = ["Name", "Description"]
    if call.options.flag("compatible"):
        columns += ["Stars", "Official", "Automated"]
    rows = [[str(line[column]) for column in columns] for line in lines]
    write_output(render_table([HEADINGS[column] for column in columns] if rows else (), rows))
    return 0


def list_tags(call: Call) -> int:
    """``--list-tags``."""
    from usercontainerd.engine.registries.searching import list_image_tags

    if call.options.given("filter"):
        raise InvalidArgument("--filter is not for --list-tags")
    lists = list_image_tags(
        call.context(),
        call.words[0],
        limit=read_limit(call),
        access=read_access(call),
        notice=write_notice,
    )
    text = call.options.value("format")
    if text == "json":
        shown: list[dict[str, Any]] = [{"Name": each.name, "Tags": list(each.tags)} for each in lists]
        write_output(render_format(text, shown, HEADINGS))
        return 0
    lines = [{"Name": each.name, "Tag": tag} for each in lists for tag in each.tags]
    if text is not None:
        write_output(render_format(text, lines, HEADINGS))
        return 0
    rows = [[line["Name"], line["Tag"]] for line in lines]
    write_output(render_table(["NAME", "TAG"] if rows else (), rows))
    return 0


def read_limit(call: Call) -> int | None:
    """``--limit``; 0 is as good as none. Raises ``InvalidArgument``."""
    text = call.options.value("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) > 100_000:
        raise InvalidArgument(f'--limit "{text}" is no number of results')
    return int(text) or None


def describe_result(result: SearchResult, *, full: bool) -> dict[str, Any]:
    """All fields of one line. Pure."""
    description = " ".join(result.description.split())
    if not full and len(description) > _WIDTH:
        description = description[: _WIDTH - 3] + "..."
    return {
        "Index": result.index,
        "Name": result.name,
        "Description": description,
        "Stars": result.stars,
        "Official": _OK if result.official else "",
        "Automated": _OK if result.automated else "",
        "Tag": "",
    }


def write_notice(text: str) -> None:
    """Say that one of several registries has failed."""
    write_error(f"{printable(text)}\n")


VERBS = {"search": (SEARCH, run_search)}
