"""``usercontainer exec``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.engine.containers.execution import ExecRequest, run_in_container
from usercontainerd.engine.containers.lookup import resolve_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

EXEC = Verb(
    "exec",
    "CONTAINER COMMAND [ARG...]",
    "Run a command in a running container",
    (
        Option("-d, --detach", "do not wait for the command"),
        Option("-e, --env NAME=VALUE...", "set an environment variable; NAME alone takes the caller's value"),
        Option("--env-file FILE...", "read environment variables from a file"),
        Option("-i, --interactive", "pass standard input on"),
        Option("-t, --tty", "give the command a terminal"),
        Option("-u, --user USER[:GROUP]", "run as this user of the container, by name or number"),
        Option("-w, --workdir DIRECTORY", "start in this directory"),
    ),
    fewest=2,
    leading=True,
    details="The command's exit status is returned; 127 if it does not exist, 126 if it cannot be executed, 125 if\n"
    "usercontainer itself failed. It lives in the container's cgroup: the unit's limits hold for it, too.",
    refused={
        "--privileged": "there is no privileged mode",
        "--detach-keys": "there is nothing to detach from: close the terminal, or use --detach",
    },
)


def run_exec(call: Call) -> int:
    """Run the command; its exit status is ours."""
    options = call.options
    terminal = options.flag("tty")
    if terminal and not options.flag("detach") and not os.isatty(0):
        raise InvalidArgument("standard input is not a terminal", hint="leave out -t")
    request = ExecRequest(
        tuple(options.words[1:]),
        interactive=options.flag("interactive"),
        terminal=terminal and not options.flag("detach"),
        detach=options.flag("detach"),
        environment=read_variables(call),
        user=options.value("user"),
        directory=options.value("workdir"),
    )

    def attach(unit: str, subgroup: str, pid: int) -> None:
        with call.connect() as manager:
            manager.attach_processes(unit, subgroup, [pid])

    return run_in_container(call.paths, resolve_name(call.paths, options.words[0]), request, attach)


def read_variables(call: Call) -> tuple[tuple[str, str], ...]:
    """What ``--env-file`` and then ``--env`` say. Raises ``InvalidArgument``."""
    options = call.options
    pairs: list[tuple[str, str]] = []
    for path in options.values("env-file"):
        from usercontainerd.runtime.environment import parse_environment_file

        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                pairs += parse_environment_file(file.read(), path, call.environment)
        except OSError as error:
            raise InvalidArgument(
                f"cannot read the environment file: {error.strerror}", where=path
            ) from error
    for text in options.values("env"):
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidArgument(f'--env "{text}" has no name')
        if equals:
            pairs.append((name, value))
        elif name in call.environment:
            pairs.append((name, call.environment[name]))
    return tuple(pairs)


VERBS = {"exec": (EXEC, run_exec)}
