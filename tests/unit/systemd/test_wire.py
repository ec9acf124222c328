from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.systemd import message as messages
from usercontainerd.systemd.message import Message, measure_message, parse_message, render_message
from usercontainerd.systemd.wire import Reader, Type, Variant, Writer, is_object_path, parse_signature, unwrap

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
ELEMENT = st.text(st.sampled_from("abzAZ019_"), min_size=1, max_size=5)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "s": TEXT,
    "o": st.lists(ELEMENT, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)", "aas"]),
    "h": st.integers(0, 2**31 - 1),
}
SIGNATURES = st.recursive(
    st.sampled_from([*BASIC, "v"]),
    lambda inner: st.one_of(
        inner.map(lambda one: f"a{one}"),
        st.lists(inner, min_size=1, max_size=4).map(lambda many: f"({''.join(many)})"),
        st.tuples(st.sampled_from("sutoyx"), inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    ),
    max_leaves=8,
)


def values_of(one: Type) -> st.SearchStrategy[Any]:
    if one.code in BASIC:
        return BASIC[one.code]
    if one.code == "v":
        return st.one_of(
            BASIC["s"].map(lambda text: Variant("s", text)),
            BASIC["t"].map(lambda number: Variant("t", number)),
            st.lists(TEXT, max_size=3).map(lambda texts: Variant("as", texts)),
            TEXT.map(lambda text: Variant("v", Variant("(s)", (text,)))),
        )
    if one.code == "(":
        return st.tuples(*map(values_of, one.parts))
    (element,) = one.parts
    if element.code == "y":
        return st.binary(max_size=20)
    if element.code == "{":
        return st.dictionaries(values_of(element.parts[0]), values_of(element.parts[1]), max_size=3)
    return st.lists(values_of(element), max_size=4)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[str, tuple[Any, ...]]:
    signature = "".join(draw(st.lists(SIGNATURES, max_size=4)))
    if len(signature) > 255:
        signature = ""
    return signature, tuple(draw(values_of(one)) for one in parse_signature(signature))


@given(typed_values())
def test_round_trip(typed: tuple[str, tuple[Any, ...]]) -> None:
    signature, values = typed
    writer = Writer()
    writer.write_all(signature, values)
    assert Reader(bytes(writer.data), fds=writer.fds).read_all(signature) == values


@given(typed_values(), st.integers(1, 2**32 - 1))
def test_message_round_trip(typed: tuple[str, tuple[Any, ...]], serial: int) -> None:
    signature, values = typed
    fields = {
        messages.PATH: "/a",
        messages.INTERFACE: "a.b",
        messages.MEMBER: "C",
        messages.SIGNATURE: signature,
    }
    data, fds = render_message(Message(messages.SIGNAL, serial, fields, values))
    assert measure_message(data[:16]) == len(data) == measure_message(data)
    parsed = parse_message(data, fds)
    assert (parsed.kind, parsed.serial, parsed.body, list(parsed.fds)) == (
        messages.SIGNAL,
        serial,
        values,
        fds,
    )
    assert parsed.fields[messages.MEMBER] == "C"


@given(typed_values(), st.data())
def test_damage_is_noticed_or_harmless(typed: tuple[str, tuple[Any, ...]], data: st.DataObject) -> None:
    fields = {messages.REPLY_SERIAL: 1, messages.SIGNATURE: typed[0]}
    good, fds = render_message(Message(messages.METHOD_RETURN, 1, fields, typed[1]))
    position = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        if measure_message(bytes(damaged)) == len(damaged):
            parse_message(bytes(damaged), fds)
    except InvalidFormat:
        pass


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        measure_message(data)
        parse_message(data)
    except InvalidFormat:
        pass


@given(st.text("asuv(){}yg", max_size=30))
def test_any_signature(signature: str) -> None:
    try:
        parse_signature(signature)
    except InvalidFormat:
        pass


@pytest.mark.parametrize(
    "signature",
    [
        "a",
        "(",
        "()",
        ")",
        "{ss}",
        "a{vs}",
        "a{s}",
        "a{sss}",
        "a{s",
        "z",
        "a" * 33 + "s",
        "(" * 33 + "s" + ")" * 33,
        "s" * 256,
    ],
)
def test_bad_signatures(signature: str) -> None:
    with pytest.raises(InvalidFormat):
        parse_signature(signature)


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        ("s", b"\1\0\0\0a"),
        ("s", b"\1\0\0\0ab"),
        ("s", b"\2\0\0\0a\0\0"),
        ("s", b"\1\0\0\0\xff\0"),
        ("s", b"\xff\xff\xff\xff"),
        ("o", b"\2\0\0\0//\0"),
        ("b", b"\2\0\0\0"),
        ("u", b"\0\0\0"),
        ("yu", b"\0\1\0\0\0\0\0\0"),
        ("as", b"\4\0\0\0\1\0\0\0a\0"),
        ("au", b"\3\0\0\0\0\0\0\0"),
        ("ay", b"\4\0\0\0abc"),
        ("v", b"\2ss\0"),
        ("v", b"\0\0"),
        ("h", b"\0\0\0\0"),
        ("y", b"\0\0"),
        ("v", b"\1v\0" * 70 + b"\1y\0\7"),
    ],
)
def test_bad_data(signature: str, data: bytes) -> None:
    with pytest.raises(InvalidFormat):
        Reader(data).read_all(signature)


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("y", 256),
        ("u", -1),
        ("s", "a\0"),
        ("s", "\ud800"),
        ("o", "x"),
        ("g", "("),
        ("(ii)", (1,)),
        ("i", "1"),
    ],
)
def test_bad_values(signature: str, value: Any) -> None:
    with pytest.raises(InvalidFormat):
        Writer().write_all(signature, (value,))


def test_number_of_values() -> None:
    with pytest.raises(InvalidFormat):
        Writer().write_all("ss", ("a",))


def test_big_endian() -> None:
    assert Reader(b"\0\0\0\2\0\0\0\1a\0", big=True).read_all("us") == (2, "a")


def test_unwrap() -> None:
    value = {"a": Variant("v", Variant("as", ["x"])), "b": [Variant("(sv)", ("y", Variant("i", 1)))]}
    assert unwrap(value) == {"a": ["x"], "b": [("y", 1)]}


@pytest.mark.parametrize(
    ("path", "valid"), [("/", True), ("/a/b_1", True), ("", False), ("/a/", False), ("/ä", False)]
)
def test_object_path(path: str, valid: bool) -> None:
    assert is_object_path(path) is valid


def test_reference_marshaller() -> None:
    """dbus_next reads what we write, and we read what it writes."""
    dbus_next = pytest.importorskip("dbus_next")
    unmarshaller = pytest.importorskip("dbus_next._private.unmarshaller")

    def convert(value: Any) -> Any:
        if isinstance(value, Variant):
            return dbus_next.Variant(value.signature, convert(value.value))
        if isinstance(value, tuple | list):
            return [convert(item) for item in value]
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return value

    @given(typed_values(), st.integers(1, 2**32 - 1))
    def check(typed: tuple[str, tuple[Any, ...]], serial: int) -> None:
        signature, values = typed
        if "h" in signature:
            return  # theirs are indices, ours descriptors
        names = {
            messages.PATH: "/a/b",
            messages.INTERFACE: "a.b",
            messages.MEMBER: "C",
            messages.DESTINATION: "d.e",
        }
        fields = {**names, messages.SIGNATURE: signature}
        ours, _ = render_message(Message(messages.METHOD_CALL, serial, fields, values))
        reference = dbus_next.Message(
            *("d.e", "/a/b", "a.b", "C"), signature=signature, body=convert(values), serial=serial
        )
        assert parse_message(bytes(reference._marshall())).body == values
        read = unmarshaller.Unmarshaller(io.BytesIO(ours)).unmarshall()
        assert (read.serial, read.signature, read.body) == (serial, signature, convert(values))

    check()
