"""``usercontainer doctor``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.engine.host.doctor import Finding, Verdict, has_missing, run_checks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

DOCTOR = Verb(
    "doctor",
    "",
    "Check what this host offers, and say how to mend what is missing",
    (
        Option("--json", "print an array of objects with name, verdict, found, lost and mend"),
        Option("-q, --quiet", "print only what is not fine"),
    ),
    most=0,
    details="fine: nothing to do. lost: containers work, but something does not. missing: no container works, which\n"
    "makes the exit status 1.",
)
_COLOURS = {Verdict.FINE: "32", Verdict.LOST: "33", Verdict.MISSING: "31"}


def run_doctor(call: Call) -> int:
    """Print the findings."""
    findings = run_checks(call.context(complete=False))
    if call.options.flag("json"):
        from usercontainerd.cli.json_text import dump_json

        write_output(dump_json([finding.as_dict() for finding in findings], indent=4) + "\n")
    else:
        shown = [f for f in findings if f.verdict != Verdict.FINE or not call.options.flag("quiet")]
        coloured = os.isatty(1) and "NO_COLOR" not in call.environment
        write_output(render_findings(shown, coloured))
    return 1 if has_missing(findings) else 0


def render_findings(findings: list[Finding], coloured: bool) -> str:
    """All findings; a command that mends several is written once. Pure."""
    text = ""
    last = ""
    for finding in findings:
        text += render_finding(finding, coloured, "as above" if finding.mend == last else finding.mend)
        last = finding.mend
    return text


def render_finding(finding: Finding, coloured: bool, mend: str) -> str:
    """Verdict, name and what is there; below, what is lost and how to mend it. Pure."""
    verdict = finding.verdict.ljust(8)
    if coloured:
        verdict = f"\x1b[{_COLOURS[finding.verdict]}m{verdict}\x1b[0m"
    lines = [f"{verdict}{finding.name.ljust(18)} {printable(finding.found)}"]
    indent = " " * 27
    if finding.lost:
        lines.append(f"{indent}lost: {printable(finding.lost)}")
    if finding.mend:
        lines.append(f"{indent}mend: {printable(mend)}")
    return "\n".join(lines) + "\n"


VERBS = {"doctor": (DOCTOR, run_doctor)}
