"""The table of keys, and what is derived from it: converters, the model, the manual."""

from __future__ import annotations

import dataclasses
import os
import re

import pytest

from tests.unit.definition.owner import DIRECTORY, OWNER
from usercontainerd.definition.diagnostic import Diagnostic
from usercontainerd.definition.directive_names import SECTIONS
from usercontainerd.definition.directives import REFUSED
from usercontainerd.definition.layers import CONVERTERS, ELEMENTS
from usercontainerd.definition.model import (
    Definition,
    Desktop,
    Health,
    HealthAction,
    Network,
    Notify,
    Output,
    Resources,
    Restart,
    Security,
    UserNamespace,
    WritableLayer,
)
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.definition.schema import ALIASES, CHOICES, DIRECTIVES, EXPLANATIONS, KEYS, find_key
from usercontainerd.definition.suggestion import squash
from usercontainerd.definition.toml_reader import SourceText, parse_definition
from usercontainerd.definition.vocabulary import CAPABILITIES, SIGNALS, normalise_signal
from usercontainerd.runtime.capabilities import ALL_CAPABILITIES

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
MANUAL = os.path.join(TOP, "man", "container-definition.5")


def check(text: str, name: str = "web") -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    return parse_definition(name, [SourceText(f"{DIRECTORY}/{name}.toml", text)], OWNER)


def test_the_schema_is_the_model() -> None:
    fields = {field.name for field in dataclasses.fields(Definition)} - {
        "name",
        "sources",
        "resources",
        "security",
        "health",
        "desktop",
    }
    fields |= {f"resources.{field.name}" for field in dataclasses.fields(Resources)}
    fields |= {f"security.{field.name}" for field in dataclasses.fields(Security)}
    fields |= {f"health.{field.name}" for field in dataclasses.fields(Health)}
    fields |= {f"desktop.{field.name}" for field in dataclasses.fields(Desktop)}
    assert set(KEYS) == fields


def test_every_kind_has_one_converter() -> None:
    assert {key.kind for key in KEYS.values()} == set(CONVERTERS) | set(ELEMENTS)
    assert not set(CONVERTERS) & set(ELEMENTS)


def test_the_choices_are_the_enumerations() -> None:
    enumerations = (PullPolicy, Network, Restart, Notify, Output, WritableLayer, UserNamespace, HealthAction)
    assert [tuple(map(str, each)) for each in enumerations] == list(CHOICES.values())


def test_hints_lead_somewhere() -> None:
    for target in ALIASES.values():
        assert target in KEYS or target == "install.wanted_by"
    leaves = {squash(name.rpartition(".")[2]) for name in KEYS}
    assert all(word == squash(word) for word in (*ALIASES, *EXPLANATIONS))
    assert not leaves & (set(ALIASES) | set(EXPLANATIONS))
    for key, (section, directive) in DIRECTIVES.items():
        assert key in KEYS
        assert directive in SECTIONS[section]
    assert set(REFUSED) <= SECTIONS["unit"] | SECTIONS["service"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("comand", "command"),
        ("Volume", "mounts"),
        ("cap-add", "security.add_capabilities"),
        ("ReadOnly", "security.read_only"),
        ("After", "unit.After"),
        ("timeout_start_sec", "service.TimeoutStartSec"),
        ("qqqqqq", None),
    ],
)
def test_the_likely_key(word: str, expected: str | None) -> None:
    assert find_key(word)[0] == expected


def test_the_kernel_s_words() -> None:
    import signal

    assert set(ALL_CAPABILITIES) == CAPABILITIES
    for name, number in SIGNALS.items():
        if hasattr(signal, name):
            assert getattr(signal, name) == number
    assert [
        normalise_signal(word)
        for word in ("term", " SIGTERM ", "15", "SIGCLD", "RTMIN+3", "SIGRTMAX-1", "37", "rtmin")
    ] == [
        *("SIGTERM",) * 3,
        "SIGCHLD",
        "SIGRTMIN+3",
        "SIGRTMIN+29",
        "SIGRTMIN+3",
        "SIGRTMIN+0",
    ]
    assert [
        normalise_signal(word)
        for word in ("", "0", "32", "65", "999999", "RTMIN+31", "RTMAX-31", "SIG", "-1", "RTMIN+", "１５")
    ] == [None] * 11


# The manual


def read_manual() -> str:
    """The text of the manual without roff's escapes; macros stay."""
    with open(MANUAL, encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"\\f[BIR]", "", text)
    for escape, character in (
        ("\\-", "-"),
        ("\\(ti", "~"),
        ("\\(dq", '"'),
        ("\\(oq", "'"),
        ("\\(cq", "'"),
        ("\\(bu", "*"),
    ):
        text = text.replace(escape, character)
    return text


def read_entries() -> dict[str, str]:
    """Key to its entry: from its .TP to the next one at the same level."""
    entries = {}
    table = ""
    for section in read_manual().split("\n.SH ")[1:]:
        title, _, body = section.partition("\n")
        table = (
            title.strip("[]").lower() + "."
            if title in ("[RESOURCES]", "[SECURITY]", "[HEALTH]", "[DESKTOP]")
            else ""
        )
        body = re.sub(r"\n\.RS\n.*?\n\.RE\n", "\n", body, flags=re.S)  # the keys of a mount's table
        for entry in re.split(r"\n\.TP\n", "\n" + body)[1:]:
            match = re.match(r'\.BI "(\w+) = " ', entry)
            if match:
                entries[table + match[1]] = entry
    return entries


def read_field(entry: str, field: str) -> str | None:
    match = re.search(rf"\n\.br\n{field}: (.*)", entry)
    return match[1] if match else None


def test_the_manual_has_every_key_and_no_other() -> None:
    assert set(read_entries()) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_the_manual_tells_default_and_likeness(key: str) -> None:
    entry = read_entries()[key]
    assert (read_field(entry, "Default") or "") == KEYS[key].default
    assert read_field(entry, "Like") == KEYS[key].like
    for word in CHOICES.get(KEYS[key].kind, ()):
        assert f'"{word}"' in entry


@pytest.mark.parametrize("key", KEYS)
def test_the_manual_s_examples_are_right(key: str) -> None:
    entry = read_entries()[key]
    example = read_field(entry, "Example")
    if example is None:
        match = re.search(r"Example:\n\.EX\n(.*?)\n\.EE", entry, re.S)
        assert match
        example = match[1]
    table, _, leaf = key.rpartition(".")
    assert example.startswith(leaf)
    image = "" if key == "image" else 'image = "x"\n'
    definition, diagnostics = check(f"{image}{f'[{table}]' if table else ''}\n{example}")
    if key == "remove":  # the one that is not for files that a person writes
        assert [each.is_error for each in diagnostics] == [False]
        return
    assert diagnostics == ()
    assert definition != check('image = "x"')[0]


def test_the_manual_s_longer_examples_are_right() -> None:
    examples = re.findall(r"\.EX\n(.*?)\n\.EE", read_manual(), re.S)
    whole = [text.replace("\n.sp\n", "\n\n") for text in examples if "\nimage = " in text]
    assert len(whole) == 4
    for text in whole:
        name = re.search(r"([a-z]+@?)\.toml", text)
        assert name
        assert check(text, name[1] + ("8443" if name[1].endswith("@") else ""))[1] == ()


def test_the_manual_names_each_refused_directive_or_its_kind() -> None:
    text = read_manual()
    for name in (
        "ExecStart",
        "Type",
        "NotifyAccess",
        "Delegate",
        "KillMode",
        "KillSignal",
        "NoNewPrivileges",
        "User",
        "PrivateTmp",
    ):
        assert name in text
        assert name in REFUSED


EXAMPLES = os.path.join(TOP, "examples")


@pytest.mark.parametrize("name", sorted(name for name in os.listdir(EXAMPLES) if name.endswith(".toml")))
def test_examples(name: str) -> None:
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        definition, diagnostics = check(file.read(), name.removesuffix(".toml"))
    assert diagnostics == ()
    assert definition is not None
