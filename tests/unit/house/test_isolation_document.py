"""docs/isolation.md and the tests that it names belong together: none is missing on either side."""

from __future__ import annotations

import re
from pathlib import Path

from tests.native.probes.escapes import ATTEMPTS

TOP = Path(__file__).parents[3]
DOCUMENT = (TOP / "docs/isolation.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"`([^`\s]+)`", DOCUMENT))


def test_every_test_that_is_named_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (TOP / "tests").rglob("test_*.py"))
    files = {path.name for path in (TOP / "tests").rglob("test_*.py")}
    named = {name.partition("[")[0] for name in NAMES if name.startswith("test_")}
    assert len(named) > 40
    for name in named:
        if name.endswith(".py"):
            assert name in files
        elif not name.endswith("_…"):
            assert f"def {name}(" in sources, name


def test_every_attempt_is_named() -> None:
    beginnings = tuple(name.removesuffix("…") for name in NAMES if name.endswith("…"))
    assert [name for name in ATTEMPTS if name not in NAMES and not name.startswith(beginnings)] == []
    for name in NAMES:
        if re.match(r"(call|unshare|nested_root|reach_host|read_proc|write_)", name) and not name.endswith(
            "…"
        ):
            assert name in ATTEMPTS
