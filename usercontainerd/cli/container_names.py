"""``usercontainer container exists``."""

from __future__ import annotations

from usercontainerd.base.errors import NoSuchContainer
from usercontainerd.cli.options import Verb
from usercontainerd.engine.containers.lookup import resolve_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

ABSENT = 1  # podman's status
EXISTS = Verb(
    "container exists",
    "CONTAINER",
    "Tell by the exit status whether there is such a container",
    fewest=1,
    most=1,
    details="0 if there is one, running or not; 1 if there is none.",
    refused={"--external": "there are no containers of other programs"},
)


def run_exists(call: Call) -> int:
    """Look."""
    try:
        resolve_name(call.paths, call.words[0])
    except NoSuchContainer:
        return ABSENT
    return 0


VERBS = {"container exists": (EXISTS, run_exists)}
