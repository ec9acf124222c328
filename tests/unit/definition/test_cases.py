"""Each file in cases/ is a definition that carries its own expectations, in comments at its end.

    ## error 3 ports[0]: port 70000 is not     a diagnostic: severity, line, key, a part of its text
    ## error 1 imgae: unknown key -> image     and the suggestion
    ## resources.memory = 33554432             a value of the parsed definition
    ## called web@blue                         the container's name; the file's otherwise
    ## ok                                      no diagnostic at all

Every diagnostic must be expected: nothing else may be reported.
"""

from __future__ import annotations

import os
from functools import reduce

import pytest

from tests.unit.definition.owner import DIRECTORY, OWNER
from usercontainerd.definition.diagnostic import Diagnostic
from usercontainerd.definition.model import Definition, Mount, Port
from usercontainerd.definition.toml_reader import SourceText, parse_definition

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
NAMES = sorted(name for name in os.listdir(CASES) if name.endswith(".toml"))
WORDS = {"Mount": Mount, "Port": Port, "inf": float("inf")}


def read_expectations(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    with open(os.path.join(CASES, name), encoding="utf-8") as file:
        text = file.read()
    expectations = read_expectations(text)
    assert expectations, "a case without expectations tests nothing"
    container = name.removesuffix(".toml")
    for line in expectations:
        if line.startswith("called "):
            container = line.removeprefix("called ")
    definition, diagnostics = parse_definition(container, [SourceText(f"{DIRECTORY}/{name}", text)], OWNER)
    wanted = [line for line in expectations if line.startswith(("error ", "warning "))]
    unmet = [line for line in wanted if not any(matches(line, each) for each in diagnostics)]
    surplus = [str(each) for each in diagnostics if not any(matches(line, each) for line in wanted)]
    assert (unmet, surplus) == ([], [])
    assert len(wanted) == len(diagnostics)
    if any(line.startswith("error ") for line in wanted):
        assert definition is None
    else:
        assert definition is not None
        check_values(definition, expectations)


def matches(expected: str, diagnostic: Diagnostic) -> bool:
    rest, _, suggestion = expected.partition(" -> ")
    head = f"{diagnostic.severity} {diagnostic.line} {diagnostic.key}: "
    return (
        rest.startswith(head)
        and rest.removeprefix(head) in diagnostic.message
        and suggestion in {"", diagnostic.suggestion}
        and str(diagnostic).count("\n") == 0
    )


def check_values(definition: Definition, expectations: list[str]) -> None:
    for line in expectations:
        path, equals, value = line.partition(" = ")
        if equals and not line.startswith(("error", "warning")):
            actual = reduce(getattr, path.split("."), definition)
            assert actual == eval(value, dict(WORDS)), path
