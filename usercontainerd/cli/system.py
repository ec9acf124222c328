"""``usercontainer system check``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.base.times import parse_duration
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.checking import DEFAULT_MAX_AGE, check_store
from usercontainerd.store.findings import Finding, Severity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

CHECK = Verb(
    "system check",
    "",
    "Find out whether the store is whole, and mend it",
    (
        Option(
            "--format FORMAT",
            "json: an array of objects with kind, severity, what, where, repair, repaired, problem",
            ("json",),
        ),
        Option("-m, --max AGE", "what nothing needs counts once it is that old (24h)"),
        Option("-q, --quick", "leave out what reads every file of every layer"),
        Option("-r, --repair", "mend what is found"),
        Option("--quiet", "print nothing that is no reason to act"),
    ),
    most=0,
    details="damage: a part of an image is missing or wrong. leftover: a killed process has left it, or nothing has\n"
    "needed it for a day. note: worth knowing. The exit status is 0 if the store is whole, or was made so; else it is\n"
    "1. A repair never takes anything from an image that is complete; one that is not is forgotten, and can be pulled\n"
    "again.",
    refused={
        "--force": "there is no need: containers of a damaged image pull it again when they start",
        "-f": "there is no need: containers of a damaged image pull it again when they start",
    },
)
CLEAR_LINE = "\r\x1b[K"
_COLOURS = {Severity.DAMAGE: "31", Severity.LEFTOVER: "33", Severity.NOTE: "36"}


def run_check(call: Call) -> int:
    """Print the findings."""
    options = call.options
    if options.value("format") not in (None, "json"):
        raise InvalidArgument("--format takes json only")
    findings = check_store(
        call.context(),
        quick=options.flag("quick"),
        repair=options.flag("repair"),
        max_age=read_age(options.value("max")),
        **({"report": report_layer} if os.isatty(2) and not options.flag("quiet") else {}),
    )
    if os.isatty(2):
        write_error(CLEAR_LINE)
    whole = not any(finding.counts for finding in findings)
    if options.flag("quiet"):
        findings = [finding for finding in findings if finding.severity != Severity.NOTE]
    if options.value("format") is not None:
        from usercontainerd.cli.json_text import dump_json

        write_output(dump_json([finding.as_dict() for finding in findings], indent=4) + "\n")
    else:
        coloured = os.isatty(1) and "NO_COLOR" not in call.environment
        write_output("".join(render_finding(finding, coloured) for finding in findings))
        if not options.flag("quiet"):
            write_error(summarise(findings, whole))
    return 0 if whole else 1


def report_layer(layer: str, number: int, count: int) -> None:
    """Show on a terminal which layer is being read."""
    write_error(f"{CLEAR_LINE}layer {number + 1} of {count}: {layer}")


def read_age(text: str | None) -> float:
    """Seconds of ``--max``, written as Go or systemd write them: ``24h``, ``1h30m``. Raises ``InvalidArgument``."""
    return DEFAULT_MAX_AGE if text is None else parse_duration(text)


def render_finding(finding: Finding, coloured: bool) -> str:
    """Severity and what is the matter; below, where, and what is done about it. Pure."""
    severity = finding.severity.ljust(9)
    if coloured:
        severity = f"\x1b[{_COLOURS[finding.severity]}m{severity}\x1b[0m"
    lines = [f"{severity} {printable(finding.what)}", f"          where:  {printable(finding.where)}"]
    if finding.repaired:
        lines.append(f"          done:   {printable(finding.repair)}")
    elif finding.repair:
        lines.append(f"          repair: {printable(finding.repair)}")
    if finding.problem:
        lines.append(f"          failed: {printable(finding.problem)}")
    return "\n".join(lines) + "\n"


def summarise(findings: list[Finding], whole: bool) -> str:
    """The last line. Pure."""
    repaired = sum(finding.repaired for finding in findings)
    if not whole:
        left = sum(finding.counts for finding in findings)
        mendable = any(finding.counts and finding.is_mendable for finding in findings)
        advice = (
            "; `usercontainer system check --repair` mends what it can" if mendable and not repaired else ""
        )
        return f"the store is not whole: {left} finding{'s' * (left != 1)}{advice}\n"
    return f"the store is whole now: {repaired} repaired\n" if repaired else "the store is whole\n"


VERBS = {"system check": (CHECK, run_check)}
