"""The verbs as a whole: each loads and has its line in the help."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from usercontainerd import __version__
from usercontainerd.cli import main as door
from usercontainerd.cli.options import Verb

VERBS = sorted(door.VERBS)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def load(name: str) -> Verb:
    return door.load_verb(name)[0]


@pytest.mark.parametrize("name", VERBS)
def test_verb_is_consistent(name: str) -> None:
    verb = load(name)
    assert verb.name == name
    assert verb.summary == door.VERBS[name][1]
    names = [each for option in verb.options for each in option.names]
    assert len(names) == len(set(names)), "an option twice"
    assert not set(names) & set(verb.refused)
    assert "--help" not in names


@pytest.mark.parametrize("name", VERBS)
def test_help_of_each_verb(name: str, capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    assert door.main([name, "--help"], environment) == 0
    by_option = capfd.readouterr().out
    assert door.main(["help", name], environment) == 0
    assert capfd.readouterr().out == by_option
    assert by_option.startswith(f"Usage: usercontainer {name}")
    assert all(len(line) <= 120 for line in by_option.splitlines())


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_overview(words: list[str], capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    assert door.main(words, environment) == 0
    text = capfd.readouterr().out
    assert all(f"\n  {name} " in text for name in VERBS)


@pytest.mark.parametrize("group", sorted(door.GROUPS))
def test_help_of_groups(group: str, capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    for words in ([group, "--help"], [group, "help"], ["help", group]):
        assert door.main(words, environment) == 0
        text = capfd.readouterr().out
        assert all(f"\n  {name} " in text for name in door.GROUPS[group])
    assert set(door.GROUPS[group].values()) <= set(door.VERBS)
    verb = min(door.GROUPS[group])
    for words in ([group, verb, "--help"], ["help", group, verb], [group, "help", verb]):
        assert door.main(words, environment) == 0
        assert capfd.readouterr().out.startswith(f"Usage: usercontainer {door.GROUPS[group][verb]}")


@pytest.mark.parametrize("words", [["--version"], ["-v"]])
def test_version(words: list[str], capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    assert door.main(words, environment) == 0
    assert capfd.readouterr().out == f"usercontainer version {__version__}\n"


def test_versions(capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    assert door.main(["version"], environment) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:3] == [
        "Client:        usercontainer",
        f"Version:       {__version__}",
        "API Version:   1 (org.usercontainer1)",
    ]
    assert f"kernel:        {os.uname().release}" in lines
    for template in ("{{.Client.Version}}", "{{.Version}}"):
        assert door.main(["version", "--format", template], environment) == 0
        assert capfd.readouterr().out == f"{__version__}\n"
    assert door.main(["version", "-f", "json"], environment) == 0
    described = json.loads(capfd.readouterr().out)
    assert set(described) == {"Client", "Components"}
    assert described["Client"]["Version"] == __version__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strat"], 'Error: there is no verb "strat" (did you mean start?)\n'),
        (["qqq"], 'Error: there is no verb "qqq" (`usercontainer help` lists all)\n'),
        (["help", "strat"], 'Error: there is no verb "strat" (did you mean start?)\n'),
        (["container", "x"], "Error: which verb of `usercontainer container`?"),
        (["ps", "--frob"], "Error: unknown option --frob"),
        (["start"], "Error: an argument is missing"),
        (["container", "start"], "Error: an argument is missing"),
        (["exec", "x"], "Error: an argument is missing"),
        (["exec", "--privileged", "x", "y"], "Error: option --privileged: there is no privileged mode"),
        (["exec", "nope", "true"], 'Error: no such container "nope"'),
        (["logs", "nope"], 'Error: no such container "nope"'),
        (
            ["run", "--detach-keys", "x", "busybox"],
            "Error: option --detach-keys: there is no way to come back",
        ),
    ],
)
def test_usage_errors_are_125(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    assert door.main(words, environment) == 125
    assert capfd.readouterr().err.startswith(message)


def test_no_manager_is_said(capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    assert door.main(["ps"], environment) == 125
    assert "the user's systemd cannot be reached" in capfd.readouterr().err


def test_closed_pipe_is_no_error_message(environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    saved = os.dup(1)
    os.dup2(writer, 1)
    try:
        assert door.main(["help"], environment) == 141
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(writer)
