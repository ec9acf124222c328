"""The line index against tomllib: texts are built from known pieces, so each path's line is known beforehand."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from usercontainerd.definition.lines import Path, find_line, find_long_key, index_lines

SCALARS = (
    "1", "-0.5e3", "true", "inf", "0xff", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00", "07:32:00",
    '"a # b"', "'it is ] } = , '", '"\\" \\\\"', '""', "''", '"""a\nb"""', "'''a\n\n]'''", '"""a \\\n  "b" ""\\""""',
    '""""two quotes"""""', "''''two''''''"[:-1], '"""\n# = [x]\n"""', '"\\u00e9\\n"',
)  # fmt: skip
KEYS = ("a", "b-c", "1", '"q.k"', '"\\u0041\\t"', "'l#'", '""', "é".join(('"', '"')))
NAMES = {key: next(iter(tomllib.loads(f"{key} = 1"))) for key in KEYS}


class Writer:
    """Text so far, and the line of every path written into it."""

    def __init__(self) -> None:
        self.text = ""
        self.lines: dict[Path, int] = {}

    def write(self, text: str) -> None:
        self.text += text

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)


scalars = st.sampled_from(SCALARS)
gaps = st.sampled_from(("", " ", "\n", "\n  # comment ] ' \"\n", "\t\r\n"))
keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.tuples(st.just("array"), st.lists(st.tuples(gaps, inner), max_size=4), st.booleans()),
        st.tuples(st.just("table"), st.lists(st.tuples(keys, inner), max_size=3)),
    ),
    max_leaves=8,
)
spaces = st.sampled_from(("", " ", "\t"))
statements = st.lists(
    st.one_of(
        st.tuples(st.just("pair"), keys, values, spaces),
        st.tuples(st.just("header"), keys, st.just(""), spaces),
        st.tuples(st.just("array"), keys, st.just(""), spaces),
        st.tuples(st.just("blank"), st.just([]), st.sampled_from(("", "# [x] = 1", "\t# \"'''")), spaces),
    ),
    max_size=12,
)


def write_key(writer: Writer, table: Path, parts: list[str], space: str) -> Path:
    path = table
    for part in parts:
        path = (*path, NAMES[part])
        writer.note(path)
    writer.write(f"{space}.{space}".join(parts))
    return path


def write_value(writer: Writer, path: Path, value: Any) -> None:
    if isinstance(value, str):
        writer.write(value)
    elif value[0] == "array":
        writer.write("[")
        for index, (gap, element) in enumerate(value[1]):
            writer.write(gap)
            writer.note((*path, index))
            write_value(writer, (*path, index), element)
            writer.write(gap + ("," if value[2] or index + 1 < len(value[1]) else "") + gap)
        writer.write("]")
    else:
        writer.write("{")
        for index, (parts, element) in enumerate(value[1]):
            writer.write(", " if index else "")
            below = write_key(writer, path, parts, " ")
            writer.write("=")
            write_value(writer, below, element)
        writer.write("}")


def build(plan: list[Any]) -> tuple[str, dict[Path, int]]:
    writer = Writer()
    table: Path = ()
    counts: dict[Path, int] = {}
    for kind, parts, value, space in plan:
        if kind == "pair":
            writer.write(space)
            path = write_key(writer, table, parts, space)
            writer.write(f"{space}={space}")
            write_value(writer, path, value)
            writer.write(space + ("" if space else "# comment"))
        elif kind == "blank":
            writer.write(value)
        else:
            line = writer.text.count("\n") + 1
            table = ()
            for index, part in enumerate(parts):
                table = (*table, NAMES[part])
                if kind == "array" and index == len(parts) - 1:
                    writer.note(table)
                    counts[table] = counts.get(table, 0) + 1
                elif table not in counts:
                    writer.note(table)
                if table in counts:
                    table = (*table, counts[table] - 1)
                    writer.note(table)
            writer.lines[table] = line
            brackets = ("[[", "]]") if kind == "array" else ("[", "]")
            writer.write(brackets[0] + space + f"{space}.{space}".join(parts) + space + brackets[1])
        writer.write("\n")
    return writer.text, writer.lines


def walk(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    else:
        children = []
    return [p for key, each in children for p in [(*path, key), *walk(each, (*path, key))]]


@given(statements)
def test_lines_are_those_where_things_were_written(plan: list[Any]) -> None:
    text, expected = build(plan)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = index_lines(text)
    assert lines == expected
    assert set(lines) == set(walk(data))


@given(statements)
def test_crlf_and_a_missing_last_newline_change_nothing(plan: list[Any]) -> None:
    text, _ = build(plan)
    assert index_lines(text.replace("\r\n", "\n").replace("\n", "\r\n")) == index_lines(text.rstrip("\n"))


toml_like = st.text(st.sampled_from("ab.=[]{}\"'\\#,\n \t1-\r\0é"), max_size=60)


@given(st.one_of(toml_like, st.text()))
@example('a = "')
@example('"\\u')
@example('"\\uzzzz" = 1')
@example("[[a")
@example('"\\1"')
@example('"\\Uffffffff" = 1')
@example("a = [{")
@example("a = [}")
@example("a = {b = ]}")
@example('a = """\\')
def test_no_text_makes_it_fail_or_hang(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in index_lines(text).values())
    assert 0 <= find_long_key(text, 2) <= text.count("\n") + 1


def test_the_nearest_container_stands_for_what_is_not_there() -> None:
    lines = index_lines("\n[a]\nb = [\n1,\n2]")
    assert lines == {("a",): 2, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 1): 5}
    assert find_line(lines, ("a", "b", 7, "c")) == 3
    assert find_line(lines, ("x",)) == 1


def test_a_long_key_is_found_wherever_it_stands() -> None:
    long = ".".join("abcdef")
    assert find_long_key(f"x = 1\n{long} = 1", 5) == 2
    assert find_long_key(f"x = 1\n[{long}]", 5) == 2
    assert find_long_key(f"x = [1,\n{{ {long} = 1 }}]", 5) == 2
    assert find_long_key(f"x = 1\n[{long}]", 6) == 0
    assert find_long_key(f'x = "{long}"\n# {long} = 1', 5) == 0
