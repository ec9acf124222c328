"""The manual's pages as man(1) shows them: groff has nothing to say about any, and nothing runs out of the window."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.containers import run

PAGES = sorted((Path(__file__).parents[2] / "man").iterdir())


@pytest.mark.parametrize("width", [80, 132])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_opens_without_a_warning(page: Path, width: int) -> None:
    environment = ("LC_ALL=C.UTF-8", "MANPAGER=cat", f"MANWIDTH={width}")
    shown = run("env", *environment, "man", "--warnings", "--local-file", str(page))
    assert shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert len(lines) > 20
    assert [line for line in lines if len(line) > width] == []
