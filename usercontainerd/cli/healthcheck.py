"""``usercontainer healthcheck run``."""

from __future__ import annotations

from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.engine.containers.health_runs import run_healthcheck
from usercontainerd.engine.containers.lookup import resolve_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

HEALTHCHECK_RUN = Verb(
    "healthcheck run",
    "CONTAINER",
    "Check the health of a running container now",
    (Option("--ignore-result", "the exit status is 0 also if the check is not passed"),),
    fewest=1,
    most=1,
    details="The exit status is 0 if the check is passed and 1 if not; then its state is printed. 125: there is no\n"
    "check, or the container does not run.",
)


def run_check(call: Call) -> int:
    """Have systemd check once, and tell what was found."""
    name = resolve_name(call.paths, call.words[0])
    with call.connect() as manager:
        state = run_healthcheck(call.paths, manager, name)
    if state.log and state.log[-1].status == 0:
        return 0
    write_output(f"{state.state}\n")
    return 0 if call.options.flag("ignore-result") else 1


VERBS = {"healthcheck run": (HEALTHCHECK_RUN, run_check)}
