"""--format: the part of Go's templates that is understood, and clear words for the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.listing import parse_filters, render_format
from usercontainerd.cli.template import parse_template

VALUE: dict[str, Any] = {
    "Names": "web",
    "State": {"Pid": 42, "Running": True, "Error": None},
    "Args": ["-c", "x y"],
    "Config": {"Labels": {"com.example.a": "b"}},
    "_labels": (("team", "blue"),),
}


def render(text: str) -> str:
    return parse_template(text).render(VALUE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Names}}", "web"),
        ("{{ .Names }}:{{.State.Pid}}", "web:42"),
        (r"{{.Names}}\t{{.State.Running}}\n", "web\ttrue\n"),
        ("{{json .Args}}", '["-c", "x y"]'),
        ("{{.Args}}", "[-c x y]"),
        ("{{.State}}", "map[Error:<nil> Pid:42 Running:true]"),
        ('{{index .Config.Labels "com.example.a"}}', "b"),
        ('{{index .Config.Labels "none"}}', ""),
        ("{{index .Args 1}}", "x y"),
        ("{{len .Args}}", "2"),
        ('{{join .Args ","}}', "-c,x y"),
        ("{{.Names | upper}}", "WEB"),
        ("{{upper .Names | lower | title}}", "Web"),
        ("{{.Args | json}}", '["-c", "x y"]'),
        ('{{.Label "team"}}', "blue"),
        ('{{.Label "none"}}', ""),
        ('{{"a quoted }"}}', "a quoted }"),
        ("{{println .Names}}", "web\n"),
    ],
)
def test_render(text: str, expected: str) -> None:
    assert render(text) == expected


def test_json_of_everything_hides_what_is_ours() -> None:
    shown = json.loads(render("{{json .}}"))
    assert shown["Names"] == "web"
    assert "_labels" not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Nam}}", "there is no field .Nam (possible are Args, Config, Names, State)"),
        ("{{.State.X}}", "possible are Error, Pid, Running"),
        ("{{._labels}}", "there is no field"),
        ("{{.Names.X}}", "there is no field .Names.X"),
        ("{{range .Args}}{{.}}{{end}}", "{{range}} is not possible (use --format json"),
        ("{{if .State}}x{{end}}", "{{if}} is not possible"),
        ("{{.Names", "{{ without }}"),
        ("{{}}", "not complete"),
        ("{{.Names |}}", "not complete"),
        ("{{Names}}", "a field is written .Names"),
        ("{{split .Names}}", "there is no function split"),
        ('{{index .Args "a"}}', "there is no element"),
        ('{{"open}}', "a quote without its end"),
        ("{{json}}", "json takes 1 argument"),
        ("{{.Names 1}}", "takes no arguments"),
        ("{{len x}}", "neither a field nor a text"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        render(text)
    assert message in str(caught.value)


def test_tables_have_headings_of_their_own() -> None:
    rows = [{"Names": "a", "Status": "Up"}, {"Names": "longer", "Status": "\x1b[31m"}]
    text = render_format(r"table {{.Names}}\t{{.Status}}", rows, {"Names": "NAMES"})
    assert text == "NAMES    STATUS\na        Up\nlonger   \\x1b[31m\n"
    assert render_format(r"table {{.Names}}", rows, {}, with_headings=False) == "a\nlonger\n"


def test_lines_are_made_printable() -> None:
    assert render_format(r"{{.A}}\t|", [{"A": "x\x9bm"}], {}) == "x\\x9bm\t|\n"


def test_json_of_a_list() -> None:
    text = render_format("json", [{"A": "\u202e\x9b\U000e0001", "_b": 1}], {})
    assert text.isascii()
    assert json.loads(text) == [{"A": "\u202e\x9b\U000e0001"}]


def test_filters() -> None:
    assert parse_filters(["name=a", "label=x=y", "name=b"]) == {"name": ["a", "b"], "label": ["x=y"]}
    with pytest.raises(InvalidArgument, match="KIND=VALUE"):
        parse_filters(["name"])


@given(st.text())
def test_any_text_is_rendered_or_refused(text: str) -> None:
    try:
        assert isinstance(render(text), str)
    except InvalidArgument:
        pass


@given(
    st.lists(
        st.sampled_from(["{{", "}}", ".", "json", "index", " ", '"', "|", ".Names", ".Args", "1", "len"])
    )
)
def test_any_pieces_are_rendered_or_refused(pieces: list[str]) -> None:
    try:
        render("".join(pieces))
    except InvalidArgument:
        pass
