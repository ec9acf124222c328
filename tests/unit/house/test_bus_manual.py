"""org.usercontainer1(5) has every member of the interfaces, as it is, every option and every error."""

from __future__ import annotations

import re
import xml.etree.ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from usercontainerd.base import errors
from usercontainerd.base.errors import UsercontainerError
from usercontainerd.daemon import logbook
from usercontainerd.daemon.call import AccessDenied, LimitExceeded

TOP = Path(__file__).parents[3]
MANUAL = (TOP / "man/org.usercontainer1.5").read_text(encoding="utf-8")
INTERFACES = sorted(path.stem for path in (TOP / "dbus").glob("*.xml"))
TITLES = {"method": "Methods", "signal": "Signals", "property": "Properties"}


def render_heading(member: Element) -> str:
    """The line that a member has in the manual."""
    if member.tag == "property":
        return f'.BR {member.get("name")} " {member.get("type")}"'
    arguments = {
        direction: ", ".join(
            f"{each.get('type')} {each.get('name')}"
            for each in member.findall("arg")
            if each.get("direction", "out") == direction
        )
        for direction in ("in", "out")
    }
    if member.tag == "signal":
        return f'.BR {member.get("name")} "({arguments["out"]})"'
    arrow = f" \\(-> {arguments['out']}" if arguments["out"] else ""
    return f'.BR {member.get("name")} "({arguments["in"]}){arrow}"'


def read_headings(title: str) -> list[str]:
    """The headings of one section."""
    _, _, rest = MANUAL.partition(f"\n.SS {title}\n")
    section = re.split(r"^\.S[SH] ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\.TP\n(.*)$", section, re.MULTILINE)


@pytest.mark.parametrize("interface", INTERFACES)
def test_members(interface: str) -> None:
    root = xml.etree.ElementTree.parse(TOP / f"dbus/{interface}.xml").getroot().find("interface")
    assert root is not None
    for tag, title in TITLES.items():
        expected = [render_heading(member) for member in root.findall(tag)]
        assert read_headings(f"{title} of {interface}") == expected


def test_options() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (TOP / "usercontainerd/daemon").glob("*.py")
    )
    options = set(re.findall(r'options\.take_\w+\(\s*"([^"]+)"', sources))
    assert len(options) > 10
    for option in options:
        assert re.search(rf"^\.BR? {option.replace('-', '.+')}\b", MANUAL, re.MULTILINE), option


def test_errors() -> None:
    section = MANUAL.partition("\n.SH ERRORS\n")[2].partition("\n.SH ")[0]
    kinds = [
        kind
        for kind in (*vars(errors).values(), AccessDenied, LimitExceeded)
        if isinstance(kind, type) and issubclass(kind, UsercontainerError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        assert re.search(rf"^\.BR? .*\b{kind.name}\b", section, re.MULTILINE), kind.name


def test_journal() -> None:
    section = MANUAL.partition("\n.SH JOURNAL\n")[2].partition("\n.SH ")[0]
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (TOP / "usercontainerd/daemon").glob("*.py")
    )
    kinds = [value for value in vars(logbook).values() if re.fullmatch("[0-9a-f]{32}", str(value))]
    fields = set(re.findall(r"\b(?:CONTAINER|USERCONTAINER|IMAGE)_[A-Z_]+(?==|\")", sources))
    assert len(kinds) == len(set(kinds)) > 5
    assert len(fields) > 5
    for word in (*kinds, *fields):
        assert re.search(rf"\b{word}\b", section), word
