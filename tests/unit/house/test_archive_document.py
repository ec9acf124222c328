"""docs/archive-safety.md and the tests and limits that it names belong together: none is missing on either side."""

from __future__ import annotations

import re
from pathlib import Path

from tests.native.test_load import HOSTILE
from usercontainerd.engine.archives import docker as docker_archives
from usercontainerd.engine.archives import input as archive_input
from usercontainerd.engine.archives import members as archive_members
from usercontainerd.oci.manifest import MAX_LAYERS, MAX_MANIFEST
from usercontainerd.store import archive_inflate, tarsplit

TOP = Path(__file__).parents[3]
TEXT = (TOP / "docs/archive-safety.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (TOP / "tests").rglob("test_*.py"))
    named = [name for name in re.findall(r"`(test_[a-z_]+)`", TEXT) if not name.endswith(".py")]
    assert len(set(named)) > 20
    for name in named:
        assert f"def {name}(" in sources, name


def test_every_case_has_its_line_and_every_line_its_case() -> None:
    assert sorted(re.findall(r"^\| case `([^`]+)` \|", TEXT, re.MULTILINE)) == sorted(HOSTILE)


def test_the_limits_are_those_of_the_code() -> None:
    for number in (
        f"{archive_members.MAX_MEMBERS:,} members",
        f"{archive_members.MAX_NAME} bytes",
        f"{archive_members.MAX_LINKS} links",
        f"{MAX_MANIFEST >> 20} MiB",
        f"{docker_archives.MAX_IMAGES:,} images",
        f"{MAX_LAYERS} layers",
        f"{archive_input.MAX_RATIO} times",
        f"{archive_input.MAX_UNMEASURED >> 30} GiB",
        f"{archive_inflate.MAX_XZ_MEMORY >> 20} MiB",
        f"{tarsplit.MAX_LINE >> 20} MiB",
    ):
        assert number in TEXT, number
