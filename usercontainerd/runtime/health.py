"""How the health of a container is checked, and what was found: two small text files that are read with ``str.split``.

``prepare`` leaves the first in the bundle, true for what runs. The second is written after every check, whole, into one
directory for all containers, so that a program can watch them at once. It names the run that it is about: what was
found of an earlier one counts no more. Imports next to nothing.
"""

from __future__ import annotations

import posix as os

from usercontainerd.runtime.plan import escape_line, unescape_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.base.paths import Paths
    from usercontainerd.definition.health import HealthPlan

HEALTH_FILE = "health"  # of the bundle; empty: nothing is checked
FORMAT = "usercontainerd-health 1"
MAX_LOG = 5  # checks that are remembered, as in docker and podman
MAX_OUTPUT = 500  # characters of what one has written, as in podman
KILLED = -1  # docker's exit status of a check that took too long
_LIMIT = 1 << 20

STARTING = "starting"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
STATES = (STARTING, HEALTHY, UNHEALTHY)


class Check:
    """What a check does: see ``definition.health.HealthPlan``. ``action`` is done with an unhealthy container."""

    __slots__ = ("action", "command", "retries", "start_period", "timeout")

    def __init__(
        self, command: Sequence[str], timeout: float, retries: int, start_period: float, action: str
    ) -> None:
        self.command = tuple(command)
        self.timeout = timeout
        self.retries = retries
        self.start_period = start_period
        self.action = action


class Outcome:
    """One check: times in seconds since the epoch, its exit status or ``KILLED``, and the begin of its output."""

    __slots__ = ("end", "output", "start", "status")

    def __init__(self, start: float, end: float, status: int, output: str) -> None:
        self.start = start
        self.end = end
        self.status = status
        self.output = output


class HealthState:
    """What is known of the run ``run``: a state, the failures in a row, and the last checks, the oldest first."""

    __slots__ = ("log", "run", "state", "streak")

    def __init__(self, run: int, state: str = STARTING, streak: int = 0, log: Sequence[Outcome] = ()) -> None:
        self.run = run
        self.state = state
        self.streak = streak
        self.log = tuple(log)


def add_outcome(before: HealthState, outcome: Outcome, check: Check, started: float) -> HealthState:
    """Return what is known after one more check of a run that began at ``started``. Pure.

    docker's rule: in the start period failures do not count, unless a check has been passed.
    """
    log = (*before.log, outcome)[-MAX_LOG:]
    if outcome.status == 0:
        return HealthState(before.run, HEALTHY, 0, log)
    if before.state == STARTING and outcome.start - started < check.start_period:
        return HealthState(before.run, STARTING, before.streak, log)
    streak = before.streak + 1
    return HealthState(before.run, UNHEALTHY if streak >= check.retries else before.state, streak, log)


def render_health(plan: HealthPlan) -> str:
    """The text of the bundle's file."""
    lines = [
        FORMAT,
        f"timeout {plan.timeout}",
        f"retries {plan.retries}",
        f"start_period {plan.start_period}",
        f"action {plan.on_failure}",
        *(f"word {escape_line(word)}" for word in plan.command),
    ]
    return "\n".join(lines) + "\n"


def read_check(bundle: str) -> Check | None:
    """Return what is checked of the container with this bundle, None if nothing is."""
    lines = _read(f"{bundle}/{HEALTH_FILE}").split("\n")
    if lines[0] != FORMAT or lines[-1] != "":
        return None
    words = [unescape_line(line[5:]) for line in lines[1:-1] if line.startswith("word ")]
    pairs = [line.split(" ", 1) for line in lines[1:-1] if not line.startswith("word ")]
    values = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    try:
        return Check(
            words,
            float(values["timeout"]),
            int(values["retries"]),
            float(values["start_period"]),
            values["action"],
        )
    except (KeyError, ValueError):
        return None


def health_directory(paths: Paths) -> str:
    """Where the states of all containers lie."""
    return f"{paths.runtime}/health"


def health_file(paths: Paths, name: str) -> str:
    """Where that of one lies."""
    return f"{health_directory(paths)}/{name}"


def identify_run(bundle: str) -> int:
    """Return a number for the run of the container that runs, 0 if it does not: crun writes its PID anew each time."""
    try:
        status = os.stat(f"{bundle}/pid")
    except OSError:
        return 0
    return status.st_mtime_ns


def render_state(state: HealthState) -> str:
    """The text of a state file."""
    lines = [
        FORMAT,
        f"{state.run} {state.state} {state.streak}",
        *(f"{each.start:.6f} {each.end:.6f} {each.status} {escape_line(each.output)}" for each in state.log),
    ]
    return "\n".join(lines) + "\n"


def parse_state(text: str) -> HealthState | None:
    """Read a state file; None if it is damaged."""
    lines = text.split("\n")
    if lines[0] != FORMAT or lines[-1] != "" or len(lines) < 3:
        return None
    try:
        run, state, streak = lines[1].split()
        log = []
        for line in lines[2:-1]:
            start, end, status, output = line.split(" ", 3)
            log.append(Outcome(float(start), float(end), int(status), unescape_line(output)))
        return HealthState(int(run), state, int(streak), log) if state in STATES else None
    except ValueError:
        return None


def read_last_state(paths: Paths, name: str) -> HealthState | None:
    """What was found last, of whatever run."""
    return parse_state(_read(health_file(paths, name)))


def read_state(paths: Paths, name: str) -> HealthState:
    """What is known of the run that there is now."""
    run = identify_run(paths.bundle(name))
    state = read_last_state(paths, name)
    return state if state is not None and state.run == run else HealthState(run)


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        return os.read(fd, _LIMIT).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(fd)
