"""docs/coming-from-podman.md against our own grammar; the native lane compares it with Podman's help."""

from __future__ import annotations

import re

from tests.support.podmandocument import DOCUMENT, STATES, find_state, read_missing_options, read_states
from usercontainerd.cli import main as door
from usercontainerd.cli.completion import find_verb


def find_own(verb: str) -> str | None:
    """Our verb of that spelling."""
    found = find_verb(verb.split())
    return found[0] if isinstance(found, tuple) else None


def test_every_verb_is_what_is_said() -> None:
    states = read_states()
    assert len(states) > 80
    assert set(states.values()) <= set(STATES)
    for verb, state in states.items():
        if verb.endswith("…"):
            assert state.startswith("not"), verb
            assert verb.removesuffix(" …") not in (*door.GROUPS, *door.VERBS), f"{verb} is there"
        else:
            assert (find_own(verb) is not None) == (state in ("same", "differs")), verb


def test_every_verb_of_ours_is_mentioned() -> None:
    states = read_states()
    own = re.search(
        r"^Of our own are (.*?)\n\n", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert own is not None
    mentioned = set(re.findall(r"`([^`]+)`", own[1].replace("\n", " ")))
    known = {verb for verb in door.VERBS if find_state(states, verb) or f"{verb} set" in states}
    assert door.VERBS.keys() - known - mentioned == set(), f"say in {DOCUMENT.name} what Podman has for it"
    assert mentioned <= door.VERBS.keys() - known


def test_options_that_are_not_there() -> None:
    missing = read_missing_options()
    assert len(missing["create"]) > 50
    for verb, options in missing.items():
        name = find_own(verb)
        assert name is not None, verb
        grammar = door.load_verb(name)[0]
        present = {each for option in grammar.options for each in option.names}
        assert not present & options, verb


def test_all_that_is_refused_is_listed() -> None:
    """But for options that docker has, and Podman's help has not."""
    dockers = {"--healthcheck-command", "--insecure", "--link", "--runtime", "--volume-driver"}
    missing = read_missing_options()
    for verb in door.VERBS:
        refused = {option for option in door.load_verb(verb)[0].refused if option.startswith("--")}
        assert refused - dockers <= missing.get(verb, set()), verb
