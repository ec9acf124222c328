"""``usercontainer logs``."""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.containers.lifecycle import is_idle
from usercontainerd.engine.containers.logs import (
    ENVIRONMENT,
    LogRequest,
    find_access_problem,
    follow_log,
    plan_log,
    render_timestamped,
)
from usercontainerd.engine.containers.lookup import resolve_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

LOGS = Verb(
    "logs",
    "CONTAINER",
    "Show what a container wrote",
    (
        Option("-f, --follow", "go on with what it writes, until it stops"),
        Option("-n, --tail NUMBER", "only so many lines from the end; all by default"),
        Option(
            "--since TIME", "from this time on: RFC 3339, seconds since the epoch, or 10m for ten minutes ago"
        ),
        Option("--until TIME", "up to this time"),
        Option("-t, --timestamps", "put the time before each line"),
    ),
    fewest=1,
    most=1,
    details="The log is the journal of the unit: `journalctl --user -u container@NAME` has it too.",
)


def run_logs(call: Call) -> int:
    """Print the log; nothing of ours stays between journalctl and the terminal where that can be."""
    name = resolve_name(call.paths, call.words[0])
    options = call.options
    request = LogRequest(
        follow=options.flag("follow"),
        lines=read_tail(options.value("tail")),
        since=options.value("since") or "",
        until=options.value("until") or "",
        timestamps=options.flag("timestamps"),
    )

    def is_alive() -> bool:
        with call.connect() as manager:
            return not is_idle(manager, name)

    if request.follow and not is_alive():
        request.follow = False
    problem = find_access_problem(call.paths, name)
    if problem is not None:
        write_error(f"Warning: {problem}\n")
    command = plan_log(call.paths, name, os.getuid(), request, time.time())
    if request.timestamps:
        return relay_with_times(call, name, command, is_alive if request.follow else None)
    if not request.follow:
        os.execve(command[0], command, ENVIRONMENT)
    follow_log(call.paths, name, command, None, is_alive)
    return 0


def relay_with_times(call: Call, name: str, command: list[str], is_alive: object) -> int:
    """Print the log with times in docker's form, which journalctl does not have."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.set_inheritable(writer, True)
        try:
            if is_alive is None:
                os.dup2(writer, 1)
                os.execve(command[0], command, ENVIRONMENT)
            follow_log(call.paths, name, command, writer, is_alive)  # type: ignore[arg-type]
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as pipe:
        for line in pipe:
            write_output(render_timestamped(line))
    os.waitpid(child, 0)
    return 0


def read_tail(text: str | None) -> int | None:
    """``--tail``: a number, ``all`` or, as docker takes it, any negative number for all."""
    if text is None or text in ("all", "-1"):
        return None
    if not text.isdecimal():
        raise InvalidArgument(f'--tail: "{text}" is neither a number nor "all"')
    return int(text)


VERBS = {"logs": (LOGS, run_logs)}
