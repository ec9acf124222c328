"""Documents that name tests: what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]


def find_names(text: str) -> set[str]:
    """Everything between backticks that is one word."""
    return set(re.findall(r"`([^`\s]+)`", text))


def check_tests(names: set[str], fewest: int) -> None:
    """Each name of a test, or of a file of tests, is that of one; ``test_x_…`` stands for several."""
    paths = list((TOP / "tests").rglob("test_*.py"))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    files = {path.name for path in paths}
    named = {name.partition("[")[0] for name in names if name.startswith("test_")}
    assert len(named) > fewest
    for name in named:
        if name.endswith(".py"):
            assert name in files
        elif not name.endswith("_…"):
            assert f"def {name}(" in sources, name
    for name in names:
        if name.startswith("tests/"):
            assert (TOP / name).exists(), name
