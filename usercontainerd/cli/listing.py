"""What lists of containers and of images share: ``--format``, ``--filter``, headings."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.cli.output import render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def parse_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """Read ``KIND=VALUE``s. Raises ``InvalidArgument``."""
    filters: dict[str, list[str]] = {}
    for text in texts:
        kind, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f'--filter "{text}": write KIND=VALUE, such as name=web')
        filters.setdefault(kind, []).append(value)
    return filters


def render_format(
    text: str, objects: list[dict[str, Any]], headings: dict[str, str], *, with_headings: bool = True
) -> str:
    """Show each object as ``--format`` says: a template, or ``json`` for an array of all.

    Keys that begin with ``_`` are not shown. Raises ``InvalidArgument``.
    """
    if text == "json":
        from usercontainerd.cli.json_text import dump_json

        shown = [{key: value for key, value in each.items() if key[0] != "_"} for each in objects]
        return dump_json(shown, indent=4) + "\n"
    from usercontainerd.cli.template import parse_template

    template = parse_template(text)
    if not template.is_table:
        return "".join(f"{escape_lines(template.render(each))}\n" for each in objects)
    lines = [template.render(each).split("\t") for each in objects]
    heading = template.render_heading(headings).split("\t") if with_headings else ()
    return render_table(heading, lines)


def escape_lines(text: str) -> str:
    """Make odd characters visible; tabs and line ends came from the template."""
    return "".join(c if c in "\t\n" else printable(c) for c in text)
