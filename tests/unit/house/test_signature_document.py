"""docs/signatures.md and the tests that it names belong together."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[3]
DOCUMENT = (TOP / "docs/signatures.md").read_text(encoding="utf-8")


def test_every_case_that_is_named_exists() -> None:
    native = TOP / "tests/native"
    sources = "\n".join(
        (native / f"test_{name}.py").read_text(encoding="utf-8")
        for name in ("gpg_signatures", "sigstore_signatures", "signature_sources")
    )
    section = DOCUMENT.partition("## What has been tried")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) > 30
    for name in names:
        if name.endswith(".py"):
            assert (TOP / name).exists() or (native / name).exists(), name
        elif name.startswith("test_"):
            assert f"def {name}(" in sources, name
        else:
            assert f'"{name}"' in sources, name
