"""``usercontainer stats``."""

from __future__ import annotations

import time

from usercontainerd.base.errors import InvalidArgument, NotRunning
from usercontainerd.base.sizes import format_size
from usercontainerd.cli.listing import render_format
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_output
from usercontainerd.cli.selection import LATEST, select_names
from usercontainerd.engine.containers.lookup import SHORT_ID, container_id, resolve_name
from usercontainerd.engine.containers.processes import show_span
from usercontainerd.engine.containers.usage import read_usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.containers.usage import Usage

UNKNOWN = "--"
INTERVAL = 5.0  # seconds, podman's
CLEAR = "\033[H\033[2J"
HEADINGS = {
    "ID": "ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET IO",
    "BlockIO": "BLOCK IO",
    "PIDs": "PIDS",
    "CPUTime": "CPU TIME",
    "AvgCPU": "AVG CPU %",
}
# The names of podman's JSON.
_JSON = dict(
    zip(
        (
            "id",
            "name",
            "cpu_percent",
            "mem_usage",
            "mem_percent",
            "net_io",
            "block_io",
            "pids",
            "cpu_time",
            "avg_cpu",
        ),
        HEADINGS,
        strict=True,
    )
)
STATS = Verb(
    "stats",
    "[CONTAINER...]",
    "Show what running containers use",
    (
        Option("-a, --all", "without effect: what does not run uses nothing"),
        Option(
            "--format TEMPLATE",
            "a Go template such as '{{.Name}}', 'table …' with headings, or json",
            ("json",),
        ),
        Option("-i, --interval SECONDS", "show it anew after so long; 5 by default"),
        LATEST,
        Option("--no-reset", "do not clear the screen"),
        Option("--no-stream", "show it once"),
        Option("--no-trunc", "do not shorten IDs"),
    ),
    details=f"Fields: {' '.join('.' + name for name in HEADINGS)}\n"
    f"{UNKNOWN} is what the kernel does not tell, for want of a controller in your session or with the host's network.",
)


def run_stats(call: Call) -> int:
    """Show it once, or again and again until it is interrupted."""
    interval = read_interval(call.options.value("interval"))
    fixed = [resolve_name(call.paths, word) for word in call.words]
    before: dict[str, Usage] = {}
    while True:
        usages = read_all(call, fixed)
        clear = "" if call.options.flag("no-stream") or call.options.flag("no-reset") else CLEAR
        write_output(clear + render_usages(call, usages, before))
        if call.options.flag("no-stream"):
            return 0
        before = usages
        time.sleep(interval)


def read_interval(text: str | None) -> float:
    """``--interval``. Raises ``InvalidArgument``."""
    from usercontainerd.base.times import parse_duration

    interval = INTERVAL if text is None else parse_duration(text)
    if interval <= 0:
        raise InvalidArgument("--interval: seconds, more than none")
    return interval


def read_all(call: Call, fixed: list[str]) -> dict[str, Usage]:
    """What each container uses that is named, or runs; one that is named and does not run is an error."""
    names = fixed
    if not fixed:
        with call.connect() as manager:
            if call.options.flag("latest"):
                names = select_names(call, manager, lambda _: True)
            else:
                from usercontainerd.engine.containers.listing import list_units

                names = [
                    name for name, unit in sorted(list_units(manager).items()) if unit.active == "active"
                ]
    found = {}
    for name in names:
        try:
            found[name] = read_usage(call.paths, name)
        except NotRunning:
            if fixed:
                raise
    return found


def render_usages(call: Call, usages: dict[str, Usage], before: dict[str, Usage]) -> str:
    """The table, or what the template makes of each."""
    full = call.options.flag("no-trunc")
    rows = [describe_usage(name, usage, before.get(name), full) for name, usage in usages.items()]
    text = call.options.value("format")
    if text == "json":
        rows = [{key: row[field] for key, field in _JSON.items()} for row in rows]
    if text is not None:
        return render_format(text, rows, HEADINGS)
    return render_table(list(HEADINGS.values()), [list(row.values()) for row in rows])


def describe_usage(name: str, usage: Usage, before: Usage | None, full: bool) -> dict[str, Any]:
    """All fields of one line, podman's. Without an earlier look, a processor's share is that since the start. Pure."""
    share = usage.average
    if before is not None and usage.lived > before.lived:
        share = max(0.0, usage.cpu - before.cpu) / (usage.lived - before.lived)
    identity = container_id(name)
    part = UNKNOWN
    if usage.memory is not None and usage.limit:
        part = f"{100 * usage.memory / usage.limit:.2f}%"
    return {
        "ID": identity if full else identity[:SHORT_ID],
        "Name": name,
        "CPUPerc": f"{100 * share:.2f}%",
        "MemUsage": show_pair(usage.memory, usage.limit),
        "MemPerc": part,
        "NetIO": show_pair(usage.received, usage.sent),
        "BlockIO": show_pair(usage.read, usage.written),
        "PIDs": UNKNOWN if usage.tasks is None else str(usage.tasks),
        "CPUTime": show_span(usage.cpu),
        "AvgCPU": f"{100 * usage.average:.2f}%",
    }


def show_pair(first: int | None, second: int | None) -> str:
    """Two sizes."""
    return " / ".join(
        UNKNOWN if size is None else format_size(size, digits=4, gap="") for size in (first, second)
    )


VERBS = {"stats": (STATS, run_stats)}
