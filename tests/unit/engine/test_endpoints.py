"""What a short name is taken to mean, and what happens when a mirror fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from usercontainerd.base.errors import (
    DigestMismatch,
    InvalidReference,
    NoSuchImage,
    PullDenied,
    RegistryError,
    StoreError,
    UsercontainerError,
)
from usercontainerd.engine.registries import source as registry_source
from usercontainerd.engine.registries.access import AS_CONFIGURED
from usercontainerd.engine.registries.endpoints import Conversation, choose_meaning, try_candidates
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.configuration import (
    Alias,
    Mirror,
    RegistriesConfiguration,
    RegistryEntry,
    ShortNameMode,
)

SEVERAL = ("a.io", "b.io")


def choose_second(_question: str, choices: Sequence[str], /) -> int:
    assert list(choices) == ["a.io/x:1", "b.io/x:1"]
    return 1


# What shortnames.Resolve of Podman's library does, with and without a terminal.
@pytest.mark.parametrize(
    ("mode", "search", "terminal", "meant", "kept"),
    [
        ("enforcing", SEVERAL, True, ["b.io/x:1"], True),
        ("enforcing", SEVERAL, False, None, False),
        ("enforcing", ("a.io",), False, ["a.io/x:1"], False),
        ("permissive", SEVERAL, True, ["b.io/x:1"], True),
        ("permissive", SEVERAL, False, ["a.io/x:1", "b.io/x:1"], False),
        ("disabled", SEVERAL, True, ["a.io/x:1", "b.io/x:1"], False),
        ("disabled", SEVERAL, False, ["a.io/x:1", "b.io/x:1"], False),
    ],
)
def test_modes(
    mode: str, search: tuple[str, ...], terminal: bool, meant: list[str] | None, kept: bool
) -> None:
    configuration = RegistriesConfiguration(search=search, mode=ShortNameMode(mode))
    talk = Conversation(choose_second if terminal else None)
    if meant is None:
        with pytest.raises(
            InvalidReference, match=r"'x' can mean a\.io/x:1, b\.io/x:1, and there is no terminal"
        ):
            choose_meaning(configuration, parse_reference("x:1"), talk)
        return
    resolution, chosen = choose_meaning(configuration, parse_reference("x:1"), talk)
    assert [str(each) for each in resolution.candidates] == meant
    assert chosen is kept
    assert resolution.short == "x"


def test_alias_is_no_question_and_is_told() -> None:
    told: list[str] = []
    configuration = RegistriesConfiguration(
        search=SEVERAL, aliases=(Alias("x", "c.io/x", "/f.conf"),), mode=ShortNameMode.ENFORCING
    )
    resolution, kept = choose_meaning(configuration, parse_reference("x:1"), Conversation(None, told.append))
    assert ([str(each) for each in resolution.candidates], kept) == (["c.io/x:1"], False)
    assert told == ["Resolved 'x' as an alias (/f.conf)"]


def test_nothing_to_search() -> None:
    configuration = RegistriesConfiguration(search=(), search_origin="/f.conf")
    with pytest.raises(NoSuchImage, match=r"/f\.conf: 'x' names no registry.*docker\.io/library/x:1"):
        choose_meaning(configuration, parse_reference("x:1"))


class Places:
    """Every place fails as ``failures`` says; the first that does not is what the image comes from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: dict[str, UsercontainerError]) -> None:
        self.failures = failures
        self.asked: list[str] = []
        self.told: list[str] = []
        monkeypatch.setattr(registry_source, "open_registry_source", lambda _c, endpoint, *_: endpoint)

    def attempt(self, endpoint: Any, name: Any) -> Any:
        place = str(endpoint.reference)
        self.asked.append(place)
        if place in self.failures:
            raise self.failures[place]
        return place, str(name)

    def run(self, *names: str) -> Any:
        configuration = RegistriesConfiguration(
            registries=(RegistryEntry("a.io", "own.io", mirrors=(Mirror("m1.io"), Mirror("m2.io/p"))),)
        )
        return try_candidates(
            None,  # type: ignore[arg-type]
            configuration,
            [parse_reference(name) for name in names],
            self.attempt,
            access=AS_CONFIGURED,
            talk=Conversation(None, self.told.append),
        )


@pytest.mark.parametrize(
    "failure", [NoSuchImage("n"), PullDenied("p"), RegistryError("r"), DigestMismatch("d")]
)
def test_mirror_that_fails_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, failure: UsercontainerError
) -> None:
    places = Places(monkeypatch, {"m1.io/x:1": failure})
    assert places.run("a.io/x:1") == ("m2.io/p/x:1", "a.io/x:1")
    assert places.told == [f"The mirror m1.io/x is passed over: {failure}"]


def test_own_location_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = NoSuchImage("gone")
    places = Places(monkeypatch, {"m1.io/x:1": gone, "m2.io/p/x:1": gone})
    assert places.run("a.io/x:1") == ("own.io/x:1", "a.io/x:1")
    places.failures["own.io/x:1"] = PullDenied("no")
    with pytest.raises(PullDenied, match=r"^no$"):
        places.run("a.io/x:1")


def test_our_own_failures_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(monkeypatch, {"m1.io/x:1": StoreError("disk full")})
    with pytest.raises(StoreError):
        places.run("a.io/x:1")
    assert places.asked == ["m1.io/x:1"]


def test_all_candidates_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(monkeypatch, {"b.io/x:1": NoSuchImage("one"), "c.io/x:1": NoSuchImage("two")})
    with pytest.raises(NoSuchImage, match="no registry has it: one; two"):
        places.run("b.io/x:1", "c.io/x:1")
    places.failures["c.io/x:1"] = RegistryError("down")
    with pytest.raises(RegistryError, match="one; down"):
        places.run("b.io/x:1", "c.io/x:1")
