"""docs/coming-from-podman.md against the help of the Podman that is here: nothing that it has is passed over."""

from __future__ import annotations

import pytest

from tests.support.podmandocument import find_state, read_missing_options, read_states
from tests.support.podmanhelp import read_verbs
from usercontainerd.cli.completion import find_verb
from usercontainerd.cli.main import load_verb

NO_VERBS = {"help"}


@pytest.fixture(scope="module")
def verbs() -> dict[str, set[str]]:
    return read_verbs()


def test_every_verb_is_mentioned(verbs: dict[str, set[str]]) -> None:
    assert len(verbs) > 150
    states = read_states()
    assert [verb for verb in verbs if verb not in NO_VERBS and find_state(states, verb) is None] == []


def test_every_option_is_there_or_listed(verbs: dict[str, set[str]]) -> None:
    missing = read_missing_options()
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
    # A newer Podman has more than the page knows; the page knows no more than what Podman has.
    assert {verb: options - found[verb] for verb, options in missing.items() if options - found[verb]} == {}
    assert {verb: options - missing[verb] for verb, options in found.items() if options - missing[verb]} == {}
