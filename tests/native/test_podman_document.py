"""docs/coming-from-podman.md against the help of the Podman that is here: nothing that it has is passed over."""

from __future__ import annotations

import pytest

from tests.support.podmandocument import find_state, read_missing_options, read_states
from tests.support.podmanhelp import read_verbs, read_version
from usercontainerd.cli.completion import find_verb
from usercontainerd.cli.main import load_verb

NO_VERBS = {"help"}
VERSIONS = ((5, 4), (5, 8))  # of Podman, that the page speaks of


@pytest.fixture(scope="module", autouse=True)
def version() -> tuple[int, ...]:
    found = read_version()
    if found not in VERSIONS:
        pytest.skip(f"the page is of Podman 5.4 and 5.8, and this is {found[0]}.{found[1]}")
    return found


@pytest.fixture(scope="module")
def verbs() -> dict[str, set[str]]:
    return read_verbs()


def test_every_verb_is_mentioned(verbs: dict[str, set[str]]) -> None:
    assert len(verbs) > 150
    states = read_states()
    assert [verb for verb in verbs if verb not in NO_VERBS and find_state(states, verb) is None] == []


def test_every_option_is_there_or_listed(verbs: dict[str, set[str]], version: tuple[int, ...]) -> None:
    missing = read_missing_options(version)
    found = {}
    for verb, options in verbs.items():
        ours = find_verb(verb.split())
        if not isinstance(ours, tuple) or (verb != ours[0] and " " not in ours[0]):
            continue  # not here, or another spelling
        grammar = load_verb(ours[0])[0]
        absent = options - {each for option in grammar.options for each in option.names}
        if absent:
            found[verb] = absent
    assert found.keys() == missing.keys()
    # The page knows no more than what Podman has, and Podman has no more than what the page knows.
    assert {verb: options - found[verb] for verb, options in missing.items() if options - found[verb]} == {}
    assert {verb: options - missing[verb] for verb, options in found.items() if options - missing[verb]} == {}
