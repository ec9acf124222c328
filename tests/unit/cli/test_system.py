"""What ``system check`` prints."""

from __future__ import annotations

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.system import read_age, render_finding, summarise
from usercontainerd.store.findings import Finding, Severity


def fail() -> None:
    raise OSError(13, "Permission denied")


def test_finding_before_and_after() -> None:
    finding = Finding(
        "blob", Severity.DAMAGE, "it is\x1b[31m bad", "/there", repair="remove it", mend=lambda: None
    )
    assert finding.counts
    text = render_finding(finding, coloured=False)
    assert text == ("damage    it is\\x1b[31m bad\n          where:  /there\n          repair: remove it\n")
    assert render_finding(finding, coloured=True).startswith("\x1b[31mdamage")
    finding.mend()
    assert finding.repaired
    assert "          done:   remove it\n" in render_finding(finding, coloured=False)
    assert summarise([finding], True) == "the store is whole now: 1 repaired\n"


def test_finding_that_cannot_be_mended() -> None:
    broken = Finding("blob", Severity.DAMAGE, "bad", "/there", repair="remove it", mend=fail)
    broken.mend()
    assert broken.counts
    assert "          failed: Permission denied\n" in render_finding(broken, coloured=False)
    alone = Finding("owner", Severity.DAMAGE, "another's", "/there", repair="ask root")
    alone.mend()
    assert alone.counts
    assert summarise([alone], False) == "the store is not whole: 1 finding\n"
    mendable = Finding("x", Severity.LEFTOVER, "old", "/there", mend=lambda: None)
    assert "2 findings; `usercontainer system check --repair`" in summarise([alone, mendable], False)


def test_notes_do_not_count() -> None:
    note = Finding("foreign", Severity.NOTE, "strange", "/there")
    assert not note.counts
    assert summarise([note], True) == "the store is whole\n"
    assert note.as_dict() == {
        "kind": "foreign",
        "severity": "note",
        "what": "strange",
        "where": "/there",
        "repair": "",
        "repaired": False,
        "problem": "",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 86400), ("24h", 86400), ("1h30m", 5400), ("90s", 90), ("0", 0), ("2days", 172800)],
)
def test_ages(text: str | None, seconds: float) -> None:
    assert read_age(text) == seconds


def test_bad_age() -> None:
    with pytest.raises(InvalidArgument, match="duration"):
        read_age("soon")
