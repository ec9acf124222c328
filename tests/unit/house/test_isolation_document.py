"""docs/isolation.md and the tests that it names belong together: none is missing on either side."""

from __future__ import annotations

import re

from tests.native.probes.escapes import ATTEMPTS
from tests.support.documents import TOP, check_tests, find_names

NAMES = find_names((TOP / "docs/isolation.md").read_text(encoding="utf-8"))


def test_every_test_that_is_named_exists() -> None:
    check_tests(NAMES, 40)


def test_every_attempt_is_named() -> None:
    beginnings = tuple(name.removesuffix("…") for name in NAMES if name.endswith("…"))
    assert [name for name in ATTEMPTS if name not in NAMES and not name.startswith(beginnings)] == []
    for name in NAMES:
        if re.match(r"(call|unshare|nested_root|reach_host|read_proc|write_)", name) and not name.endswith(
            "…"
        ):
            assert name in ATTEMPTS
