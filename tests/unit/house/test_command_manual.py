"""usercontainer(1) against the grammar of the verbs, both ways: verbs, arguments, options and what these take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from usercontainerd.cli import main as door
from usercontainerd.cli.container_options import CONTAINER_OPTIONS
from usercontainerd.cli.options import Option
from usercontainerd.cli.registry_options import ACCESS_OPTIONS

# groff writes a hyphen as \-.
MANUAL = (Path(__file__).parents[3] / "man/usercontainer.1").read_text(encoding="utf-8")
MANUAL = MANUAL.replace("\\-", "-").replace("\\\n", "")  # ... and goes on behind a \\ at the end of a line
SECTIONS = dict(re.findall(r"^\.SH (.*)\n((?:(?!\.SH ).*\n)*)", MANUAL, re.MULTILINE))
VERBS = dict(re.findall(r"^\.SS (.*)\n((?:(?!\.SS ).*\n)*)", SECTIONS["VERBS"], re.MULTILINE))
TWO_LINES = {"image trust": ("image trust show [OPTIONS]", "image trust set [OPTIONS] REGISTRY[/REPOSITORY]")}
SHARED = {"CONTAINER OPTIONS": CONTAINER_OPTIONS, "REGISTRY OPTIONS": ACCESS_OPTIONS}


def read_options(section: str) -> dict[str, str]:
    """Each option that a section explains, with what it takes: that of ``-a, --author TEXT`` is both names'."""
    found: dict[str, str] = {}
    for tag in re.findall(r"^\.TP\n(\\fB-.*)$", section, re.MULTILINE):
        waiting: list[str] = []
        for name, argument in re.findall(r"\\fB(-.*?)\\fR(?: \\fI(.*?)\\fR)?", tag):
            assert name not in found, f"{name} twice"
            found[name] = argument
            if argument:
                found.update(dict.fromkeys(waiting, argument))
            waiting = [] if argument else [*waiting, name]
    return found


def render_options(options: tuple[Option, ...]) -> dict[str, str]:
    """The same of the grammar."""
    return {name: option.metavar for option in options for name in option.names}


def read_synopsis(section: str) -> list[str]:
    """The first lines of a verb, without their markup."""
    head = section.partition("\n.PP\n")[0]
    return [
        squeeze(" ".join(re.sub(r'^\.[BIR]+ |"', "", line) for line in lines.splitlines()))
        for lines in head.split("\n.br\n")
    ]


def squeeze(text: str) -> str:
    """Spaces at brackets and bars are a matter of markup."""
    return re.sub(r" *([|\[\]]) *", r"\1", text)


def test_verbs() -> None:
    assert list(VERBS) == sorted(door.VERBS)


@pytest.mark.parametrize("name", sorted(door.VERBS))
def test_synopsis(name: str) -> None:
    verb, _ = door.load_verb(name)
    options = " [OPTIONS]" if verb.options else ""
    lines = TWO_LINES.get(name, (f"{name}{options} {verb.arguments}".rstrip(),))
    assert read_synopsis(VERBS[name]) == [squeeze(f"usercontainer {line}") for line in lines]


@pytest.mark.parametrize("name", sorted(door.VERBS))
def test_options(name: str) -> None:
    explained = read_options(VERBS[name])
    for heading, shared in SHARED.items():
        elsewhere = render_options(shared)
        if heading in VERBS[name] and not explained.keys() & elsewhere.keys():
            explained |= elsewhere
    assert explained == render_options(door.load_verb(name)[0].options)


@pytest.mark.parametrize("heading", sorted(SHARED))
def test_options_of_many_verbs(heading: str) -> None:
    assert read_options(SECTIONS[heading]) == render_options(SHARED[heading])
