"""Our dataclasses behave as the real ones: each is compared with a twin that ``dataclasses`` made."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from usercontainerd.base import records


@records.dataclass(frozen=True)
class Ours:
    """A record."""

    name: str
    size: int = 3
    parts: list[str] = records.field(default_factory=list)

    @property
    def double(self) -> int:
        return self.size * 2


@dataclasses.dataclass(frozen=True)
class Real:
    """A record."""

    name: str
    size: int = 3
    parts: list[str] = dataclasses.field(default_factory=list)

    @property
    def double(self) -> int:
        return self.size * 2


@records.dataclass(frozen=True)
class Hashed:
    name: str
    size: int = 3


@records.dataclass(frozen=True)
class Spoken:
    name: str

    def __str__(self) -> str:
        return f"<{self.name}>"

    def __repr__(self) -> str:
        return "its own"


BOTH = pytest.mark.parametrize("kind", [Ours, Real])


@BOTH
def test_values_by_place_by_name_and_by_default(kind: Any) -> None:
    for made in (kind("a", 4, ["x"]), kind("a", parts=["x"], size=4), kind(name="a", size=4, parts=["x"])):
        assert (made.name, made.size, made.parts, made.double) == ("a", 4, ["x"], 8)
        assert made == kind("a", 4, ["x"])
        assert made != kind("a", 5, ["x"])
        assert made != ("a", 4, ["x"])
    first, second = kind("a"), kind("a")
    assert first.size == kind.size == 3
    assert first.parts == [] and first.parts is not second.parts
    assert not hasattr(kind, "parts")


@BOTH
@pytest.mark.parametrize(
    ("values", "given"),
    [
        ((), {}),
        (("a", 1, [], 2), {}),
        (("a",), {"name": "b"}),
        (("a",), {"colour": "red"}),
        ((), {"size": 1}),
    ],
)
def test_wrong_arguments_are_refused(kind: Any, values: Any, given: Any) -> None:
    with pytest.raises(TypeError):
        kind(*values, **given)


@BOTH
def test_fields_cannot_be_set(kind: Any) -> None:
    made = kind("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
        made.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'other'"):
        made.other = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
        del made.name
    assert made == kind("a")


@BOTH
def test_it_can_be_copied_matched_and_replaced(kind: Any) -> None:
    made = kind("a", 4, ["x"])
    assert copy.deepcopy(made) == made == copy.copy(made) == pickle.loads(pickle.dumps(made))
    match made:
        case Ours(name, size) | Real(name, size):
            assert (name, size) == ("a", 4)
        case _:
            pytest.fail("no match")
    for function in (records.replace, dataclasses.replace):
        other = function(made, size=5)
        assert other == kind("a", 5, ["x"]) and type(other) is kind
        with pytest.raises(TypeError):
            function(made, colour="red")
    assert made.size == 4


def test_who_asks_sees_the_fields_of_the_real_one() -> None:
    assert dataclasses.is_dataclass(Ours)
    ours, real = dataclasses.fields(Ours), dataclasses.fields(Real)
    for name in ("name", "type", "default", "default_factory", "init", "repr", "compare"):
        wanted = [getattr(each, name) for each in real]
        assert [getattr(each, name) for each in ours] == wanted
    assert dataclasses.asdict(Ours("a", 4, ["x"])) == {"name": "a", "size": 4, "parts": ["x"]}


def test_the_rest_is_the_same_too() -> None:
    assert repr(Ours("a")) == repr(Real("a")).replace("Real", "Ours")
    assert hash(Hashed("a")) == hash(("a", 3)) == hash(Hashed("a", 3))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours("a"))
    assert (str(Spoken("a")), repr(Spoken("a"))) == ("<a>", "its own")


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(TypeError, match="inherits"):

        @records.dataclass(frozen=True)
        class Heir(Hashed):
            colour: str = ""

    with pytest.raises(TypeError, match="only frozen ones"):

        @records.dataclass(frozen=False)
        class Open:
            colour: str
