"""``usercontainer start``, ``stop``, ``restart`` and ``rm``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, NoSuchContainer, UsercontainerError, printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import truncate, write_error, write_output
from usercontainerd.cli.selection import CIDFILE, FILTERS, LATEST, read_words, select_names
from usercontainerd.engine.containers.lifecycle import (
    find_own_definition,
    remove_container,
    restart_container,
    start_container,
    stop_containers,
)
from usercontainerd.engine.containers.lookup import resolve_name
from usercontainerd.systemd.manager import Manager, UnitFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.containers.listing import Container

TIME = Option(
    "-t, --time, --timeout SECONDS", "kill what still runs after so long, not after the unit's time"
)
FILTER = "-f, --filter KIND=VALUE..."
MATCHING = "the containers that match, as in `ps`"
SIG_PROXY = Option("--sig-proxy", "pass signals on to the container (default true)", ("true", "false"))
ATTACH_REFUSED = {"--detach-keys": "there is no way to come back: use `run -d` or `start`, and `exec -it`"}
START = Verb(
    "start",
    "CONTAINER [CONTAINER...]",
    "Start containers",
    (
        Option("--all", "all containers that do not run"),
        Option("-a, --attach", "stay with the one container as `run` does, and return its exit status"),
        Option(FILTER, MATCHING, FILTERS),
        Option("-i, --interactive", "with --attach, which it implies: lend it standard input, too"),
        LATEST,
        SIG_PROXY,
    ),
    details="Waits until the container runs; an image that is missing is pulled first. One that runs is left as it is.",
    refused=ATTACH_REFUSED,
)
STOP = Verb(
    "stop",
    "CONTAINER [CONTAINER...]",
    "Stop containers",
    (
        Option("-a, --all", "all containers that run"),
        CIDFILE,
        Option(FILTER, MATCHING, FILTERS),
        Option("-i, --ignore", "a container that does not exist is no error"),
        LATEST,
        TIME,
    ),
)
RESTART = Verb(
    "restart",
    "CONTAINER [CONTAINER...]",
    "Stop and start containers",
    (
        Option("-a, --all", "all containers, running or not"),
        CIDFILE,
        Option(FILTER, MATCHING, FILTERS),
        LATEST,
        Option("--running", "all containers that run"),
        TIME,
    ),
)
RM = Verb(
    "rm",
    "CONTAINER [CONTAINER...]",
    "Remove containers",
    (
        Option("-a, --all", "all containers but those that a definition of yours still defines"),
        CIDFILE,
        Option("--filter KIND=VALUE...", MATCHING, FILTERS),
        Option("-f, --force", "kill a running container first; one that does not exist is no error"),
        Option("-i, --ignore", "a container that does not exist is no error"),
        LATEST,
        Option("-t, --time SECONDS", "with --force: stop it, and kill only what still runs after so long"),
    ),
    details="Removes what `create` made, writable layer included. A definition that you have written is not removed.",
    refused={
        "-v": "volumes stay until volume verbs exist",
        "--volumes": "volumes stay until volume verbs exist",
    },
)


def run_start(call: Call) -> int:
    """Start each; on a terminal, say what a start that takes long is doing."""
    if call.options.flag("attach") or call.options.flag("interactive"):
        return start_attached(call)
    line = StatusLine() if os.isatty(2) else None

    def act(manager: Manager, name: str) -> None:
        try:
            start_container(manager, name, report=line)
        finally:
            if line is not None:
                line.clear()

    return for_each(call, act, lambda container: not container.is_alive)


def start_attached(call: Call) -> int:
    """Start one container and stay with it."""
    from usercontainerd.cli.attached import stay
    from usercontainerd.engine.containers.attachment import Wishes

    words = read_words(call)
    if len(words) != 1:
        raise InvalidArgument("--attach and --interactive are for one container")
    interactive = call.options.flag("interactive")
    wishes = Wishes(
        (0, 1, 2) if interactive else (1, 2),
        interactive=interactive,
        passes_signals=call.options.flag("sig-proxy", True),
    )
    return stay(call, resolve_name(call.paths, words[0]), wishes)


def run_restart(call: Call) -> int:
    """Restart each."""
    timeout = read_timeout(call)

    def act(manager: Manager, name: str) -> None:
        restart_container(manager, name, timeout=timeout)

    return for_each(call, act)


def run_stop(call: Call) -> int:
    """Stop all at once."""
    timeout = read_timeout(call)
    status = 0
    names = {}
    words = read_words(call)
    with call.connect() as manager:
        for word in words or select_names(call, manager, lambda container: container.is_alive):
            try:
                names[word] = resolve_name(call.paths, word)
            except NoSuchContainer as error:
                if not call.options.flag("ignore"):
                    write_error(f"Error: {error}\n")
                    status = error.exit_status
        stop_containers(manager, names.values(), timeout=timeout)
    write_output("".join(f"{word}\n" for word in names))
    return status


def run_rm(call: Call) -> int:
    """Remove each."""
    force = call.options.flag("force")
    timeout = read_timeout(call)
    if timeout is not None and not force:
        raise InvalidArgument("--time is for --force: a running container is not removed without it")

    def act(manager: Manager, name: str) -> None:
        if timeout is not None and find_own_definition(call.paths, name) is None:
            stop_containers(manager, [name], timeout=timeout)
        remove_container(call.context(), manager, name, force=force)

    def is_removable(container: Container) -> bool:
        return find_own_definition(call.paths, container.name) is None

    return for_each(call, act, is_removable, missing_is_fine=force or call.options.flag("ignore"))


def for_each(
    call: Call,
    act: Callable[[Manager, str], None],
    belongs: Callable[[Container], bool] = lambda _: True,
    *,
    missing_is_fine: bool = False,
) -> int:
    """Act on each container that is meant; go on after a failure, and print each that succeeded.

    ``belongs`` says which ``--all`` means.
    """
    status = 0
    words = read_words(call)
    with call.connect() as manager:
        for word in words or select_names(call, manager, belongs):
            try:
                act(manager, resolve_name(call.paths, word))
            except NoSuchContainer as error:
                if not missing_is_fine:
                    write_error(f"Error: {error}\n")
                    status = error.exit_status
                continue
            except UsercontainerError as error:
                report(error)
                status = error.exit_status
                continue
            write_output(f"{word}\n")
    return status


class StatusLine:
    """One line on standard error that is written over."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, text: str) -> None:
        """Show ``text`` in the place of what was there."""
        shown = truncate(printable(text), 79)
        write_error(f"\r{shown.ljust(self._width)}")
        self._width = len(shown)

    def clear(self) -> None:
        """Take it away."""
        if self._width:
            write_error(f"\r{' ' * self._width}\r")
            self._width = 0


def report(error: UsercontainerError) -> None:
    """Show an error; of a failed start, first what the container, or what starts it, wrote beyond that."""
    text = str(error)
    if isinstance(error, UnitFailure):
        lines = [printable(line) for line in error.log]
        write_error("".join(f"{line}\n" for line in lines if line not in text))
    write_error(f"Error: {text}\n")


def read_timeout(call: Call) -> float | None:
    """``--time``, in seconds. Raises ``InvalidArgument``."""
    text = call.options.value("time")
    if text is None:
        return None
    from usercontainerd.base.times import parse_duration

    if text.startswith("-"):
        raise InvalidArgument(
            "--time: waiting without end is the unit's to say", hint='stop_timeout = "infinity"'
        )
    return parse_duration(text)


VERBS = {
    "restart": (RESTART, run_restart),
    "rm": (RM, run_rm),
    "start": (START, run_start),
    "stop": (STOP, run_stop),
}
