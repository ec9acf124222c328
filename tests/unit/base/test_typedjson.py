"""Typed JSON: strict, bounded, and errors that say where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.typedjson import JsonValue, parse_json


def parse(text: str | bytes, limit: int = 100_000) -> JsonValue:
    return parse_json(text.encode() if isinstance(text, str) else text, "doc", limit=limit, source="here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ('{"a": {"b": 1, "b": 1}}', "'b' occurs twice"),
        ("[NaN]", "NaN is not a JSON number"),
        ("[-Infinity]", "not a JSON number"),
        (b"\xff\xfe", "not valid JSON"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
        ("[" * 100 + "]" * 100, "nested more than 64 levels"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 levels"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message) as caught:
        parse(text, limit=1_000_000)
    assert caught.value.where == "here"


def test_size_limit() -> None:
    with pytest.raises(InvalidFormat, match="more than the 10 allowed"):
        parse('"0123456789"', limit=10)


def test_paths_in_errors() -> None:
    document = parse('{"layers": [{"size": 1}, {"size": "x"}], "map": {"k": 5}, "n": -1, "s": "\\ud800"}')
    sizes = [layer.get("size") for layer in document.get("layers").elements()]
    assert sizes[0].integer() == 1
    with pytest.raises(
        InvalidFormat, match=r"here: doc\.layers\[1\]\.size: expected a whole number, found a string"
    ):
        sizes[1].integer()
    with pytest.raises(InvalidFormat, match=r"doc\.map\['k'\]: expected a string, found a number"):
        document.get("map").text_map()
    with pytest.raises(InvalidFormat, match=r"doc\.n: must be between 0"):
        document.get("n").integer()
    with pytest.raises(InvalidFormat, match=r"doc\.s: holds half of a surrogate pair"):
        document.get("s").text()
    with pytest.raises(InvalidFormat, match=r"doc\.missing: expected a string, found null"):
        document.get("missing").text()
    with pytest.raises(InvalidFormat, match=r"doc\.n: expected an object"):
        document.get("n").get("x")
    with pytest.raises(InvalidFormat, match=r"2 elements are more than the 1 allowed"):
        list(document.get("layers").elements(limit=1))


def test_null_is_absent() -> None:
    document = parse('{"a": null}')
    assert not document.has("a")
    assert document.get("a").text("x") == "x"
    assert document.get("a").integer(3) == 3
    assert document.get("a").boolean() is False
    assert document.get("a").texts() == ()
    assert document.get("a").text_map() == ()
    assert document.get("a").optional_text() is None
    assert document.get("a").optional_texts() is None


def test_booleans_are_no_numbers() -> None:
    document = parse('{"a": true, "b": 1}')
    with pytest.raises(InvalidFormat, match="found a boolean"):
        document.get("a").integer()
    with pytest.raises(InvalidFormat, match="expected a boolean"):
        document.get("b").boolean()


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_agrees_with_the_standard_library(value: object) -> None:
    assert parse(json.dumps(value)).raw == value


@given(st.binary(max_size=200))
def test_never_fails_otherwise(data: bytes) -> None:
    try:
        parse(data)
    except InvalidFormat:
        pass
