"""Whatever the text: diagnostics, never an exception, and never a long time."""

from __future__ import annotations

import os
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.definition.owner import DIRECTORY, OWNER
from usercontainerd.definition.diagnostic import Diagnostic
from usercontainerd.definition.place import MAX_PROBLEMS
from usercontainerd.definition.schema import KEYS
from usercontainerd.definition.toml_reader import MAX_SIZE, SourceText, parse_definition, parse_table

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")


def read_cases() -> list[str]:
    texts = []
    for name in sorted(os.listdir(CASES)):
        with open(os.path.join(CASES, name), encoding="utf-8") as file:
            texts.append("".join(line for line in file if not line.startswith("##")))
    return texts


TEXTS = read_cases()


def parse(*texts: str, name: str = "web") -> tuple[Any, tuple[Diagnostic, ...]]:
    files = [SourceText(f"{DIRECTORY}/{index}.toml", text) for index, text in enumerate(texts)]
    definition, diagnostics = parse_definition(name, files, OWNER)
    assert (definition is None) == any(d.is_error for d in diagnostics)
    for each in diagnostics:
        line = str(each)
        assert "\n" not in line
        assert line.isprintable()
        assert len(line) < 2000
        if each.path:
            text = texts[int(os.path.basename(each.path).removesuffix(".toml"))]
            assert 0 <= each.line <= text.count("\n") + 1
    if definition is not None:
        hash(definition)
    return definition, diagnostics


@given(st.text())
def test_any_text(text: str) -> None:
    parse(text)


@given(st.sampled_from(TEXTS), st.data())
def test_mutated_definitions(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        piece = data.draw(
            st.one_of(
                st.text("\"'[]{}=.,\\%:#\n\0-0", max_size=3), st.sampled_from(TEXTS).map(lambda t: t[:40])
            )
        )
        text = text[:start] + piece + text[end:]
    parse(text)
    parse('image = "x"', text, name="web@blue")


plain = st.one_of(
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.sampled_from(("%i", "a:b", "/a:/b:ro", "80:80")),
)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(
    st.sampled_from(sorted({part for key in KEYS for part in key.split(".")})) | st.text(max_size=5),
    anything
    | st.dictionaries(st.sampled_from([key.rpartition(".")[2] for key in KEYS]), anything, max_size=4),
    max_size=6,
)


@given(tables)
def test_any_values_in_any_place(table: dict[str, Any]) -> None:
    definition, diagnostics = parse_table("web", {"image": "x", **table}, OWNER, DIRECTORY)
    assert (definition is None) == any(d.is_error for d in diagnostics)
    assert all(d.path == "" and d.line == 0 for d in diagnostics)


BIG = MAX_SIZE - 100
HOSTILE = {
    "too large": "#" * (MAX_SIZE + 1),
    "one comment": "#" * BIG,
    "deep array": "image = " + "[" * BIG,
    "closed deep array": "image = " + "[" * 5000 + "]" * 5000,
    "deep inline table": "image = " + "{a=" * (BIG // 3),
    "long dotted key": ".".join("a" * (BIG // 4)) + " = 1",
    "long header": "[" + ".".join("a" * (BIG // 4)) + "]",
    "long key in an inline table": "x = { " + ".".join("a" * (BIG // 4)) + " = 1 }",
    "keys of middling length": "\n".join(f"[{'a.' * 500}b{n}]" for n in range(BIG // 1100)),
    "dotted label": "image = 'x'\nlabels." + ".".join("a" * 900) + " = 1",
    "many unknown keys": "\n".join(f"a{n}=1" for n in range(BIG // 9)),
    "many unknown directives": "[service]\n" + "\n".join(f"A{n}='x'" for n in range(BIG // 12)),
    "many ports": "image = 'x'\nports = [" + "'1-60000:1-60000'," * (BIG // 18) + "]",
    "many addresses": "image = 'x'\nports = ["
    + ",".join(f"'127.0.{n >> 8}.{n & 255}:1-60000:1-60000'" for n in range(999))
    + ",'1:1']",
    "many mounts": "image = 'x'\nmounts = [" + "'/a:/b'," * (BIG // 9) + "]",
    "a long command": "image = 'x'\ncommand = '" + "a" * (BIG - 20) + "'",
    "a long quoted command": 'image = "x"\ncommand = "' + "'" * 30001 + '"',
    "many escapes": 'description = "' + "\\u0041" * (BIG // 6) + '"\nx = 1',
    "many percent signs": "image = 'x'\ndescription = '" + "%" * (BIG - 31) + "y'",
    "a huge integer": "stop_timeout = " + "9" * BIG,
    "a huge hexadecimal": "[resources]\nmemory = 0x" + "f" * BIG,
    "a huge float": "stop_timeout = 1e999999",
    "a long line": "x" * BIG,
    "quotes": "'''\n" * (BIG // 4),
    "brackets": "[[" * (BIG // 2),
    "array tables": "[[mounts]]\n" * (BIG // 11),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name: str) -> None:
    start = time.process_time()
    _, diagnostics = parse(HOSTILE[name])
    assert diagnostics
    assert len(diagnostics) <= MAX_PROBLEMS + 1
    # Not a measurement: the square of a mebibyte would take hours.
    assert time.process_time() - start < 60


def test_no_files_is_no_definition() -> None:
    definition, diagnostics = parse_definition("web", [], OWNER)
    assert definition is None
    assert len(diagnostics) == 1


def test_surplus_problems_are_counted() -> None:
    _, diagnostics = parse("image = 'x'\n" + "\n".join(f"a{n} = 1" for n in range(150)))
    assert len(diagnostics) == MAX_PROBLEMS + 1
    assert diagnostics[-1].message == "50 more problems are not shown"


def test_all_files_are_looked_at_even_if_one_is_no_toml() -> None:
    _, diagnostics = parse("image = ", "pulll = 1", "memory")
    assert [(d.path[-6:], d.line, d.key) for d in diagnostics] == [
        ("0.toml", 1, ""),
        ("1.toml", 1, "pulll"),
        ("2.toml", 1, ""),
    ]


def test_cases_are_toml() -> None:
    good = [text for text in TEXTS if _is_toml(text)]
    assert len(good) > len(TEXTS) * 3 // 4


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
