"""``usercontainer wait``."""

from __future__ import annotations

from usercontainerd.base.errors import NoSuchContainer
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.cli.selection import LATEST, read_words, select_names
from usercontainerd.engine.containers.lookup import resolve_name
from usercontainerd.engine.containers.waiting import CONDITIONS, parse_conditions, wait_containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

MISSING = -1  # what podman prints of a container that does not exist
WAIT = Verb(
    "wait",
    "CONTAINER [CONTAINER...]",
    "Wait until containers have ended, and print their exit statuses",
    (
        Option("--condition CONDITION...", "until any of these holds; stopped by default", tuple(CONDITIONS)),
        Option("--exit-first-match", "end with the first container, not with the last"),
        Option("--ignore", "a container that does not exist is no error; -1 is printed"),
        Option("-i, --interval DURATION", "without effect: systemd tells when it is so"),
        LATEST,
    ),
    details="A container that has ended already answers at once.",
)


def run_wait(call: Call) -> int:
    """Print a status for each, in the order of the command line."""
    wanted = parse_conditions(call.options.values("condition"))
    first_only = call.options.flag("exit-first-match")
    words = read_words(call)
    with call.connect() as manager:
        names = [find_name(call, word) for word in words or select_names(call, manager, lambda _: True)]
        statuses: dict[str | None, int] = {None: MISSING}
        shown = 0
        known = [name for name in dict.fromkeys(names) if name is not None]
        for name, status in wait_containers(call.paths, manager, known, wanted):
            statuses[name] = status
            if first_only:
                write_output(f"{status}\n")
                return 0
            shown = write_statuses(names, statuses, shown)
    write_statuses(names, statuses, shown)
    return 0


def find_name(call: Call, word: str) -> str | None:
    """The container that is meant, None if there is none and that is fine."""
    try:
        return resolve_name(call.paths, word)
    except NoSuchContainer:
        if call.options.flag("ignore"):
            return None
        raise


def write_statuses(names: list[str | None], statuses: dict[str | None, int], shown: int) -> int:
    """Print what is known by now, as far as it is in order; return how many have been printed."""
    while shown < len(names) and names[shown] in statuses:
        write_output(f"{statuses[names[shown]]}\n")
        shown += 1
    return shown


VERBS = {"wait": (WAIT, run_wait)}
