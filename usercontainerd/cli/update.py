"""``usercontainer update``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.sizes import parse_size
from usercontainerd.cli.container_options import CONTAINER_OPTIONS, REFUSED
from usercontainerd.cli.container_table import (
    explain_diagnostics,
    plan_restart,
    read_reservation,
    read_resources,
)
from usercontainerd.cli.lifecycle import for_each
from usercontainerd.cli.options import Verb
from usercontainerd.cli.selection import LATEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import Options
    from usercontainerd.systemd.manager import Manager

# The options of create that mean a limit, and which one of a definition's.
_LIMITS = {
    "blkio-weight": "io_weight",
    "cpu-shares": "cpu_weight",
    "cpus": "cpus",
    "memory": "memory",
    "memory-reservation": "memory_low",
    "memory-swap": "swap",
    "pids-limit": "pids",
}
_OPTIONS = tuple(option for option in CONTAINER_OPTIONS if option.key in (*_LIMITS, "restart"))
UPDATE = Verb(
    "update",
    "CONTAINER [CONTAINER...]",
    "Change the limits and the restart policy of containers",
    (*_OPTIONS[:-1], LATEST, _OPTIONS[-1]),
    details="They hold at once, for a container that runs, too, and stay. 0 takes a limit away. It is for what\n"
    "`create` and `run` have made: a definition that you have written is yours to edit.",
    refused={
        option: REFUSED[option]
        for option in ("--cpu-period", "--cpu-quota", "--cpuset-cpus")
        if option in REFUSED
    },
)


def run_update(call: Call) -> int:
    """Change each."""
    from usercontainerd.engine.containers.updating import plan_changes, update_container

    options = call.options
    table, lifted = read_changes(options)
    swap = options.value("memory-swap")
    total = None if swap in (None, "0") else -1 if swap == "-1" else parse_size(swap or "")
    if not table and not lifted and total is None:
        raise InvalidArgument("there is nothing to change", hint="usercontainer update --help")
    context = call.context()

    def act(manager: Manager, name: str) -> None:
        changes, problems = plan_changes(context, name, table, lifted=lifted, total=total)
        if changes is None:
            raise explain_diagnostics(problems)
        update_container(context, manager, name, changes)

    return for_each(call, act)


def read_changes(options: Options) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a definition that the options mean, and the limits that they take away.

    Raises ``InvalidArgument``.
    """
    policy = options.value("restart")
    table = {} if policy is None else plan_restart(policy)
    resources = read_resources(options)
    if resources:
        table["resources"] = resources
    reservation = read_reservation(options)
    if reservation:
        table["service"] = {**table.get("service", {}), **reservation}
    lifted = [
        limit
        for option, limit in _LIMITS.items()
        if options.given(option) and limit not in resources and not (limit == "memory_low" and reservation)
    ]
    if options.value("memory-swap") not in (None, "0"):
        lifted.remove("swap")
    return table, lifted


VERBS = {"update": (UPDATE, run_update)}
