"""``usercontainer kill``, ``pause`` and ``unpause``."""

from __future__ import annotations

from usercontainerd.cli.lifecycle import FILTER, MATCHING, for_each
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.selection import CIDFILE, FILTERS, LATEST
from usercontainerd.engine.containers.killing import kill_container, parse_signal
from usercontainerd.engine.containers.listing import State
from usercontainerd.engine.containers.pausing import pause_container, resume_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.systemd.manager import Manager

KILL = Verb(
    "kill",
    "CONTAINER [CONTAINER...]",
    "Send a signal to the first process of containers",
    (
        Option("-a, --all", "all containers that run"),
        CIDFILE,
        LATEST,
        Option("-s, --signal SIGNAL", "by name or number; KILL by default"),
    ),
    details="KILL ends the container, and it is not started again whatever its restart policy says. A process that is\n"
    "the first of its PID namespace gets no other signal that it has no handler for.",
)
PAUSE = Verb(
    "pause",
    "CONTAINER [CONTAINER...]",
    "Have all processes of containers stand still",
    (
        Option("-a, --all", "all containers that run"),
        CIDFILE,
        Option(FILTER, MATCHING, FILTERS),
        LATEST,
    ),
    details="Paused containers keep their memory and their place; `unpause`, `stop` and `kill` end it.",
)
UNPAUSE = Verb(
    "unpause",
    "CONTAINER [CONTAINER...]",
    "Let the processes of paused containers go on",
    (
        Option("-a, --all", "all containers that are paused"),
        CIDFILE,
        Option(FILTER, MATCHING, FILTERS),
        LATEST,
    ),
)


def run_kill(call: Call) -> int:
    """Send the signal to each."""
    number = parse_signal(call.options.value("signal") or "KILL")

    def act(manager: Manager, name: str) -> None:
        kill_container(call.paths, manager, name, number)

    return for_each(call, act, lambda container: container.state in (State.RUNNING, State.PAUSED))


def run_pause(call: Call) -> int:
    """Pause each."""
    return for_each(call, pause_container, lambda container: container.state == State.RUNNING)


def run_unpause(call: Call) -> int:
    """Let each go on."""
    return for_each(call, resume_container, lambda container: container.state == State.PAUSED)


VERBS = {"kill": (KILL, run_kill), "pause": (PAUSE, run_pause), "unpause": (UNPAUSE, run_unpause)}
