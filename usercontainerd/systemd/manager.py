"""systemd's user manager, for short-lived commands (org.freedesktop.systemd1(5)).

Its private socket is tried first: it needs no bus daemon, no ``Hello`` and no subscription, and a login
without a session bus has it too.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import SystemdError
from usercontainerd.systemd.bus import Bus, BusError, escape_object_path
from usercontainerd.systemd.journal import plan_journalctl, read_last_lines
from usercontainerd.systemd.message import MEMBER
from usercontainerd.systemd.wire import Variant, unwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Self

    from usercontainerd.systemd.message import Message

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
PROPERTIES = "org.freedesktop.DBus.Properties"

NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
LOG_LINES = 10  # of a unit that failed
_STARTING_JOBS = ("start", "restart")
_JOB_SUCCEEDED = ("done", "skipped")
_JOB_ENDS = {
    "canceled": "the job was cancelled",
    "timeout": "the job timed out",
    "dependency": "a unit that it depends on failed",
    "assert": "an assertion of the unit failed",
    "unsupported": "systemd does not support this kind of unit here",
    "frozen": "the unit is frozen",
}
_CLD_EXITED = 1


class UnitStatus:
    """One unit as ``ListUnits`` has it: ``active`` and ``sub`` states, the ID of its ``job`` or 0, its ``job_type``."""

    __slots__ = ("active", "description", "job", "job_type", "load", "name", "path", "sub")

    def __init__(self, fields: tuple[Any, ...]) -> None:
        self.name, self.description, self.load, self.active, self.sub, _, self.path = fields[:7]
        self.job, self.job_type, _ = fields[7:]


class UnitFailure(SystemdError):
    """A job on a unit did not succeed.

    ``properties`` are the unit's and ``log`` the last lines that its processes wrote, as far as they could
    be read.
    """

    def __init__(
        self, what: str, *, unit: str, properties: Mapping[str, Any], log: Sequence[str] = ()
    ) -> None:
        super().__init__(what, where=unit, hint=f"journalctl --user -u {unit}")
        self.unit = unit
        self.properties = properties
        self.log = tuple(log)


class Manager:
    """The user manager behind ``bus``. Method names and modes (``replace``, ``fail``…) are systemd's."""

    def __init__(self, bus: Bus, *, is_peer: bool = True) -> None:
        self.bus = bus
        self._is_peer = is_peer

    @classmethod
    def connect(cls, runtime_directory: str, bus_address: str | None = None) -> Self:
        """Connect to the manager that owns ``runtime_directory`` (``$XDG_RUNTIME_DIR``).

        ``bus_address`` is ``$DBUS_SESSION_BUS_ADDRESS``, used where the private socket does not answer.
        Raises ``SystemdError``.
        """
        try:
            return cls(Bus.connect(f"unix:path={runtime_directory}/systemd/private", peer=True))
        except SystemdError:
            address = bus_address or f"unix:path={runtime_directory}/bus"
        try:
            bus = Bus.connect(address)
        except SystemdError as error:
            hint = "is there a login session of this user, or lingering (loginctl enable-linger)?"
            raise SystemdError("the user's systemd cannot be reached", where=address, hint=hint) from error
        bus.match(f"type='signal',sender='{NAME}',interface='{MANAGER}',path='{PATH}'")
        return cls(bus, is_peer=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.bus.close()

    def call(
        self, member: str, signature: str = "", *arguments: Any, timeout: float | None = 25.0
    ) -> tuple[Any, ...]:
        """Call a method of the Manager interface."""
        return self.bus.call(NAME, PATH, MANAGER, member, signature, *arguments, timeout=timeout)

    def subscribe(self) -> None:
        """Ask for the signals of units and jobs (``wait_job`` does not need that)."""
        self.call("Subscribe")

    def watch_units(self, paths: Iterable[str]) -> None:
        """From now on have signals of changes of these units (their object paths); ``bus.wait_signal`` takes them."""
        if self._is_peer:
            return  # which is sent everything
        for path in paths:
            self.bus.match(f"type='signal',sender='{NAME}',interface='{PROPERTIES}',path='{path}'")
        self.subscribe()

    def reload(self) -> None:
        """Have unit files read and generators run anew; returns when that is done."""
        self.call("Reload", timeout=120.0)

    def reset_failed(self, unit: str) -> None:
        """Forget that ``unit`` failed; one that is not loaded has not."""
        try:
            self.call("ResetFailedUnit", "s", unit)
        except BusError as error:
            if error.dbus_name != NO_SUCH_UNIT:
                raise

    def start_unit(self, unit: str, mode: str = "replace", *, timeout: float | None = None) -> None:
        """Start ``unit`` and wait until it has; raises ``UnitFailure`` with the unit's own reason."""
        self._run_job("StartUnit", unit, mode, timeout)

    def stop_unit(self, unit: str, mode: str = "replace", *, timeout: float | None = None) -> None:
        """Stop ``unit`` and wait until it has."""
        self._run_job("StopUnit", unit, mode, timeout)

    def restart_unit(self, unit: str, mode: str = "replace", *, timeout: float | None = None) -> None:
        """Stop ``unit`` if it runs, start it, and wait until it has."""
        self._run_job("RestartUnit", unit, mode, timeout)

    def queue_job(self, method: str, unit: str, mode: str = "replace") -> str:
        """Have ``method`` (``StartUnit``…) make a job and return its path without waiting (see ``wait_job``)."""
        try:
            path: str = self.call(method, "ss", unit, mode)[0]
        except BusError as error:
            raise SystemdError(error.what, where=unit) from error
        return path

    def wait_job(self, job: str, *, timeout: float | None = None) -> str:
        """Wait for the end of ``job`` and return its result (``done``, ``failed``…); "" when ``timeout`` passes."""

        def is_removed(signal: Message) -> bool:
            return (
                signal.fields.get(MEMBER) == "JobRemoved" and len(signal.body) == 4 and signal.body[1] == job
            )

        signal = self.bus.wait_signal(is_removed, timeout=timeout)
        return signal.body[3] if signal is not None else ""

    def unit_properties(self, unit: str) -> dict[str, Any]:
        """Return all properties of ``unit`` of all its interfaces, as ``systemctl show`` has them."""
        reply = self.bus.call(NAME, unit_path(unit), PROPERTIES, "GetAll", "s", "")
        properties: dict[str, Any] = unwrap(reply[0])
        return properties

    def get_properties(self, requests: Iterable[tuple[str, str, str]]) -> list[Any]:
        """Return the value of each (unit, interface, property) in one round trip, None where there is none."""
        calls = (
            (NAME, unit_path(unit), PROPERTIES, "Get", "ss", (interface, name))
            for unit, interface, name in requests
        )
        replies = self.bus.try_all(calls)
        return [None if isinstance(reply, BusError) else unwrap(reply[0]) for reply in replies]

    def will_start(self, unit: str) -> bool:
        """Tell whether there is a job that starts ``unit``, be it after a stop that goes on just now."""
        return any(one.job_type in _STARTING_JOBS for one in self.list_units(unit))

    def list_units(self, *patterns: str, states: Sequence[str] = ()) -> list[UnitStatus]:
        """Return the loaded units whose names match one of ``patterns`` (glob)."""
        listed = self.call("ListUnitsByPatterns", "asas", list(states), list(patterns))[0]
        return [UnitStatus(fields) for fields in listed]

    def attach_processes(self, unit: str, subgroup: str, pids: Sequence[int]) -> None:
        """Move processes into ``subgroup`` (``/`` or a path below) of the cgroup of the delegated ``unit``."""
        self.call("AttachProcessesToUnit", "ssau", unit, subgroup, list(pids))

    def set_properties(
        self, unit: str, properties: Iterable[tuple[str, Variant]], *, runtime: bool = True
    ) -> None:
        """Set properties of a loaded unit; with ``runtime`` until the next reboot."""
        listed = [(name, value) for name, value in properties]
        self.call("SetUnitProperties", "sba(sv)", unit, runtime, listed)

    def start_transient_unit(
        self,
        unit: str,
        properties: Iterable[tuple[str, Variant]],
        *,
        stdio: tuple[int, int, int] | None = None,
        mode: str = "fail",
        timeout: float | None = None,
    ) -> None:
        """Make and start a unit without a file and wait until it has started.

        ``stdio`` are descriptors that its processes get as standard input, output and error.
        """
        listed = [(name, value) for name, value in properties]
        if stdio is not None:
            names = (
                "StandardInputFileDescriptor",
                "StandardOutputFileDescriptor",
                "StandardErrorFileDescriptor",
            )
            listed += [(name, Variant("h", fd)) for name, fd in zip(names, stdio, strict=True)]
        try:
            job = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, mode, listed, [])[0]
        except BusError as error:
            raise SystemdError(error.what, where=unit) from error
        self._finish_job(job, unit, timeout)

    def read_signals(self, *, timeout: float | None = None) -> Iterator[Message]:
        """Yield signals of units and the manager until none comes for ``timeout`` seconds."""
        while (signal := self.bus.wait_signal(lambda _: True, timeout=timeout)) is not None:
            yield signal

    def _run_job(self, method: str, unit: str, mode: str, timeout: float | None) -> None:
        self._finish_job(self.queue_job(method, unit, mode), unit, timeout)

    def _finish_job(self, job: str, unit: str, timeout: float | None) -> None:
        result = self.wait_job(job, timeout=timeout)
        if not result:
            raise SystemdError(f"not done after {timeout:g} seconds, but systemd goes on with it", where=unit)
        self.check_result(result, unit)

    def check_result(self, result: str, unit: str) -> None:
        """Raise ``UnitFailure`` if a job on ``unit`` that ended as ``result`` did not succeed."""
        if result in _JOB_SUCCEEDED:
            return
        try:
            properties = self.unit_properties(unit)
        except SystemdError:
            properties = {}
        log = _read_log(unit, properties.get("InvocationID"))
        raise UnitFailure(explain_failure(result, properties), unit=unit, properties=properties, log=log)


def _read_log(unit: str, invocation: object) -> tuple[str, ...]:
    if not isinstance(invocation, bytes) or not invocation:
        return ()
    plan = plan_journalctl(unit, os.getuid(), lines=LOG_LINES, invocation=invocation.hex())
    try:
        return read_last_lines(plan)
    except SystemdError:
        return ()


def unit_path(unit: str) -> str:
    """Return the object path of ``unit``, which systemd loads if need be."""
    return f"{PATH}/unit/{escape_object_path(unit)}"


def explain_failure(job_result: str, properties: Mapping[str, Any]) -> str:
    """Return one sentence on why a job ended as ``job_result``, from the unit's ``properties``.

    ``StatusText`` is what the launcher said last (``STATUS=``), and knows best; ``Result`` is systemd's
    verdict.
    """
    if properties.get("LoadState") == "bad-setting":
        return "the unit has an error in its settings"
    status = str(properties.get("StatusText") or "")
    result = properties.get("Result", "success")
    if job_result != "failed" and result == "success":
        return _JOB_ENDS.get(job_result, f"the job ended as {job_result}")
    reason = _explain_result(str(result), properties)
    return f"{status} ({reason})" if status else reason


def _explain_result(result: str, properties: Mapping[str, Any]) -> str:
    main = (properties.get("ExecMainCode", 0), properties.get("ExecMainStatus", 0))
    # No main process: it failed before, in ExecStartPre=, whose outcome is in the command's own record.
    code, status = main if main[0] else _last_control_status(properties)
    if result == "exit-code" or (result == "protocol" and code == _CLD_EXITED):
        return f"it ended with exit status {status}"
    if result in ("signal", "core-dump"):
        return f"it was killed by signal {status}"
    return {
        "oom-kill": "it ran out of memory and was killed",
        "timeout": "it took longer than its timeout",
        "start-limit-hit": "it was started too often in a short time",
        "watchdog": "its watchdog ran out",
        "resources": "the system lacks resources for it",
        "exec-condition": "its condition was not met",
        "protocol": "it ended without saying that it is ready",
        "success": "systemd does not say why",
    }.get(result, result)


def _last_control_status(properties: Mapping[str, Any]) -> tuple[int, int]:
    for command in reversed(properties.get("ExecStartPre", ())):
        code, status = command[-2:]
        if code:
            return code, status
    return 0, 0
