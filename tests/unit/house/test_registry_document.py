"""docs/registry-safety.md and the tests that it names belong together: none is missing on either side."""

from __future__ import annotations

import re

from tests.support.documents import TOP, check_tests, find_names
from tests.support.hostile import CASES
from usercontainerd.oci.manifest import MAX_LAYERS, MAX_MANIFEST, MAX_MANIFESTS
from usercontainerd.registry import listing, patience, session
from usercontainerd.registry.connections import MAX_HEADERS, Limits
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import WORKING
from usercontainerd.store.worker import UnpackLimits

TEXT = (TOP / "docs/registry-safety.md").read_text(encoding="utf-8")
NAMES = find_names(TEXT)


def test_every_test_that_is_named_exists() -> None:
    check_tests(NAMES, 60)


def test_every_case_has_its_line_and_every_line_its_case() -> None:
    lines = re.findall(r"^\| case `([^`]+)` \|", TEXT, re.MULTILINE)
    assert sorted(lines) == sorted(CASES)


def test_the_limits_are_those_of_the_code() -> None:
    limits, tries, unpack = Limits(), Patience(), UnpackLimits()
    for number in (
        f"{limits.connect:.0f} s",
        f"{limits.read:.0f} s",
        f"{limits.answer:.0f} s",
        f"{WORKING:.0f} s",
        f"{limits.least // 1024} KiB in {limits.window:.0f} s",
        f"{MAX_HEADERS // 1024} KiB",
        f"{MAX_MANIFEST // 1024 // 1024} MiB",
        f"{session.MAX_ERROR // 1024} KiB",
        f"{MAX_LAYERS} layers",
        f"{MAX_MANIFESTS:,} images",
        f"{session.MAX_REDIRECTS} redirects",
        f"{tries.tries} tries",
        f"{patience.MAX_RETRY_AFTER:.0f} s",
        f"{listing.MAX_NAMES:,} names",
        f"{listing.MAX_PAGES:,} pages",
        f"{unpack.ratio} times",
        f"{unpack.entries:,} entries",
    ):
        assert number in TEXT, number
