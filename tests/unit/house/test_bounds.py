"""About 500 lines a module and about 50 a function: beyond these bounds either is too many things."""

from __future__ import annotations

import ast
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
MOST_OF_A_MODULE = 550
MOST_OF_A_FUNCTION = 60
# Each with why it is one thing all the same; how long it may be.
LONG_MODULES = {
    "examples/container-panel.py": 900,  # an application in one file, so that it can be copied
}
LONG_FUNCTIONS = {
    (
        "usercontainerd/engine/transfers/obtaining.py",
        "pull_image",
    ): 75,  # a third is its signature, which has every choice of a pull
}


def test_modules_are_about_one_thing() -> None:
    found = {}
    for folder in ("usercontainerd", "tools", "examples", "bench", "tests"):
        for path in (TOP / folder).rglob("*.py"):
            name, count = str(path.relative_to(TOP)), path.read_text(encoding="utf-8").count("\n")
            if count > LONG_MODULES.get(name, MOST_OF_A_MODULE):
                found[name] = count
    assert found == {}


def test_functions_are_about_one_thing() -> None:
    found = {}
    seen = set()
    for folder in ("usercontainerd", "tools"):
        for path in (TOP / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                key = (str(path.relative_to(TOP)), node.name)
                seen.add(key)
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONG_FUNCTIONS.get(key, MOST_OF_A_FUNCTION):
                    found[key] = length
    assert found == {}
    assert seen >= set(LONG_FUNCTIONS), "an exception for what is not there any more"
