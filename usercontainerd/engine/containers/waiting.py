"""Waiting until containers are in some state: systemd's signals tell, nothing polls."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.names import health_service, unit_name
from usercontainerd.engine.containers.listing import State, derive_state
from usercontainerd.runtime.health import HEALTHY, UNHEALTHY, read_state
from usercontainerd.runtime.summary import read_exit
from usercontainerd.systemd.manager import SERVICE, UNIT, unit_path
from usercontainerd.systemd.message import MEMBER, PATH
from usercontainerd.systemd.wire import unwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usercontainerd.base.paths import Paths
    from usercontainerd.systemd.manager import Manager
    from usercontainerd.systemd.message import Message

_ENDED = (State.CREATED, State.EXITED, State.FAILED, State.INVALID)
# podman's conditions that there are here, and the states that fulfil them.
CONDITIONS = {
    "created": (State.CREATED,),
    "exited": _ENDED,
    "healthy": (HEALTHY,),
    "running": (State.RUNNING,),
    "stopped": _ENDED,
    "stopping": (State.STOPPING,),
    "unhealthy": (UNHEALTHY,),
}
_CLD_EXITED = 1


def parse_conditions(texts: Sequence[str]) -> frozenset[str]:
    """Return the states that any of the conditions means; of none, those of a container that has ended.

    Raises ``InvalidArgument``.
    """
    for text in texts:
        if text not in CONDITIONS:
            raise InvalidArgument(
                f'--condition: "{text}" is not possible', hint=f"possible are {', '.join(CONDITIONS)}"
            )
    return frozenset(state for text in texts or ("stopped",) for state in CONDITIONS[text])


def wait_containers(
    paths: Paths, manager: Manager, names: Sequence[str], wanted: frozenset[str]
) -> Iterator[tuple[str, int]]:
    """Yield each container, once it is in a ``wanted`` state, with the exit status of its last run.

    That is 0 of one that has not ended, or has not run.
    """
    pending = dict.fromkeys(names)
    units = {unit_path(unit_name(name)): name for name in names}
    if wanted & {HEALTHY, UNHEALTHY}:
        # What a check has found is written when its unit has ended.
        units |= {unit_path(health_service(name)): name for name in names}
    statuses: dict[str, int] = {}  # of runs that end before our eyes: what `--rm` removes leaves no record
    manager.watch_units(units)
    while pending:
        for name in tuple(pending):
            active, sub = manager.get_properties(
                [(unit_name(name), UNIT, "ActiveState"), (unit_name(name), UNIT, "SubState")]
            )
            record = read_exit(paths.container_data(name))
            state = derive_state(str(active or "inactive"), str(sub or "dead"), record)
            if state in wanted or (state == State.RUNNING and read_state(paths, name).state in wanted):
                del pending[name]
                ended = state in _ENDED
                yield name, statuses.get(name, record.status if record is not None else 0) if ended else 0
        if pending:
            _wait_change(manager, units, statuses)


def _wait_change(manager: Manager, units: dict[str, str], statuses: dict[str, int]) -> None:
    def is_change(signal: Message) -> bool:
        name = units.get(signal.fields.get(PATH, ""))
        if name is None or signal.fields.get(MEMBER) != "PropertiesChanged":
            return False
        if signal.body[0] == SERVICE and signal.fields[PATH] == unit_path(unit_name(name)):
            changed = signal.body[1]
            code, status = (unwrap(changed.get(f"ExecMain{key}", 0)) for key in ("Code", "Status"))
            if code:
                statuses[name] = status if code == _CLD_EXITED else 128 + status
        return True

    manager.bus.wait_signal(is_change, timeout=None)
