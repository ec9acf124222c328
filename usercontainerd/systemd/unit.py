"""From a definition to the text of ``container@NAME.service``. Pure; meant to read as if a person wrote it.

Only what differs from systemd's defaults is written. Where the user's own ``[unit]``, ``[service]`` or
``[install]`` names a directive that is set here too, theirs replaces ours if systemd knows one value for
it, and is added to ours if it is a list.

Choices that are not plain from the text of a unit:

- ``SuccessExitStatus=``: systemd takes a death by SIGTERM, SIGINT, SIGHUP or SIGPIPE for a clean end, but a
  container's init is process 1 of its namespace, where shells, Java or s6 report the same as an exit status
  of 128 + signal. Without it ``systemctl stop`` of such a container leaves a failed unit.
- ``OOMPolicy=stop``, the default of every service, is overridden by ``Delegate=``: without it the unit goes
  on when the kernel killed one of its processes, and ``Result=oom-kill`` is never seen.
- ``RequiresMountsFor=`` for what is bound into the container: the user's own mount units (sshfs, rclone, a
  volume that udisks mounts) are started before it and stopped after it. systemd of the system has mounted
  its own by then.
- ``MemorySwapMax=``: with a limit on memory and no word on swap, as much swap as memory, as docker and
  Podman have it: else a limit on memory only moves a process to swap.
- ``CollectMode=``: of a container that is removed when it has ended, systemd remembers no failure either.
- A stop timeout of zero kills at once. ``TimeoutStopSec=0`` would mean to wait forever.
- ``KillMode=process``, unless it is sure that the output is not copied (see ``runtime/copier.py``). With ``mixed``,
  systemd kills the rest of the unit as soon as the main process has failed, and the copier with the last lines in hand:
  ``ExecStopPost=`` would come too late to wait for it. So that kills the rest itself; what is in the container's PID
  namespace dies with init.
- ``Upholds=`` the timer of health checks, not ``Wants=``: it holds, too, for one that is known only when the start is
  under way, since the image asks for it.
- network-online.target is not waited for: it belongs to systemd of the system, and many machines never
  reach it.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, InvalidDefinition
from usercontainerd.base.names import health_timer, unit_name
from usercontainerd.base.unitfile import (
    UnitFile,
    is_unit_name,
    quote_path,
    render_command,
    render_path,
    render_text,
)
from usercontainerd.definition.health import plan_health
from usercontainerd.kernel.cgroups import SUBGROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usercontainerd.base.programs import Programs
    from usercontainerd.definition.model import Definition, Directives, Health, Resources

SLICE = "container.slice"
DEFAULT_PIDS = 2048  # containers.conf(5) ``pids_limit``: a fork bomb inside must not be everybody's
FAILURE_UNIT = "usercontainerd-failed@"
DOCUMENTATION = "man:container-definition(5)"

# Of the directives written here, those that systemd collects rather than replaces.
LISTS = frozenset(
    (
        "Documentation",
        "RequiresMountsFor",
        "Upholds",
        "OnFailure",
        "ExecStopPost",
        "SuccessExitStatus",
        "Environment",
    )
)
DEPENDENCY_DIRECTORIES = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}

_SIGNAL_NUMBERS = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGABRT": 6,
    "SIGUSR1": 10,
    "SIGUSR2": 12,
    "SIGTERM": 15,
}
_CLEAN_SIGNALS = frozenset(("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"))
_UNITS_OF_SIZE = ((1024**4, "T"), (1024**3, "G"), (1024**2, "M"), (1024, "K"))


def build_unit(definition: Definition, programs: Programs, *, image_stop_signal: str | None = None) -> str:
    """Return the whole text of ``container@NAME.service``.

    ``image_stop_signal`` is the image's ``StopSignal``, for a container made at run time, whose image is at
    hand; the generator must not look into the store. Raises ``InvalidDefinition`` for a directive that
    cannot be passed through.
    """
    unit = UnitFile()
    for line in _render_header(definition.name, definition.sources):
        unit.add_comment(line)
    _add_section(unit, "Unit", tuple(_plan_unit(definition)), definition.unit)
    ours = (*_plan_service(definition, programs), *_plan_resources(definition.resources))
    _add_section(unit, "Service", ours, definition.service)
    install = check_install(definition.name, definition.install)
    # An instance is what there is of a template then; it has no instances itself.
    _add_section(unit, "Install", (), tuple(pair for pair in install if pair[0] != "DefaultInstance"))
    return unit.render()


def build_image_drop_in(
    definition: Definition, image_stop_signal: str | None, *, with_timer: bool = False
) -> str:
    """Return the text of a drop-in with what the image asks for and ``definition`` leaves open, "" if that is nothing.

    ``image_stop_signal`` is the image's ``StopSignal``, spelt as systemd does (``SIGQUIT``); ``with_timer``: it has a
    health check. Whoever starts the container has the image at hand and writes the drop-in, see
    ``usercontainerd.systemd.renewal``.
    """
    is_usual = (
        definition.stop_signal or not definition.stop_timeout or (image_stop_signal or "SIGTERM") == "SIGTERM"
    )
    if is_usual and not with_timer:
        return ""
    unit = UnitFile()
    unit.add_comment(f"What the image {definition.image} asks for; written when the container was started.")
    if with_timer:
        unit.add("Unit", "Upholds", health_timer(definition.name))
    if not is_usual:
        unit.add_all("Service", _plan_stop_signal(str(image_stop_signal)))
    return unit.render()


def build_health_timer(definition: Definition, health: Health | None = None) -> str:
    """Return the text of ``container-health@NAME.timer``, "" if the timer has nothing to do.

    ``health`` is that of the definition and its image together, of a definition that leaves it to the image; without it
    only what the definition says itself counts, since the generator must not look into the store.
    """
    plan = plan_health(definition.health if health is None else health)
    if plan is None or not plan.interval:
        return ""
    unit = UnitFile()
    if health is None:
        for line in _render_header(definition.name, definition.sources):
            unit.add_comment(line)
    else:
        unit.add_comment(
            f"What the image {definition.image} asks for; written when the container was started."
        )
    container = unit_name(definition.name)
    section = (
        ("Description", render_text(f"Health checks of container {definition.name}")),
        ("Documentation", DOCUMENTATION),
        *(tuple(_plan_source(definition.sources)) if health is None else ()),
        # Before timers.target and so before basic.target, as is usual, would be before the container, too.
        ("DefaultDependencies", "no"),
        ("BindsTo", container),
        ("After", container),
    )
    unit.add_all("Unit", section)
    # The first after the start; then each so long after the end of the last. A check that takes long delays the next.
    unit.add_all("Timer", (("OnActiveSec", render_seconds(each)) for each in plan.early))
    unit.add("Timer", "OnUnitInactiveSec", render_seconds(plan.interval))
    unit.add("Timer", "AccuracySec", render_seconds(min(1.0, plan.interval / 10)))
    return unit.render()


def build_failed_unit(name: str, problems: Sequence[str], path: str, programs: Programs) -> str:
    """Return the text of a unit for a definition with errors: starting it fails and says why.

    ``problems`` are shown by ``systemctl cat``. The start itself reads the definition anew, tells what is
    wrong then, and goes on if nothing is.
    """
    unit = UnitFile()
    for line in (*_render_header(name, (path,)), "", "It has errors:", *(f"  {line}" for line in problems)):
        unit.add_comment(line)
    unit.add("Unit", "Description", render_text(f"Container {name} (broken definition)"))
    unit.add("Unit", "Documentation", DOCUMENTATION)
    unit.add_all("Unit", _plan_source((path,)))
    service = (
        ("Type", "notify"),
        ("NotifyAccess", "all"),
        ("ExecStartPre", render_command((programs.renew_unit, name))),
        ("ExecStart", render_command((programs.launch, name))),
        ("SyslogIdentifier", render_text(name)),
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("DelegateSubgroup", SUBGROUP),
    )
    unit.add_all("Service", service)
    return unit.render()


def plan_links(definition: Definition) -> tuple[str, ...]:
    """Return the links, beside the unit, that make ``[install]`` effective as ``systemctl enable`` would."""
    unit = f"container@{definition.name}.service"
    links = []
    for key, names in check_install(definition.name, definition.install):
        if key in DEPENDENCY_DIRECTORIES:
            links += [f"{name}.{DEPENDENCY_DIRECTORIES[key]}/{unit}" for name in names]
        elif key == "Alias":
            links += names
    return tuple(dict.fromkeys(links))


def check_install(name: str, directives: Directives) -> Directives:
    """Return ``directives`` of ``[install]`` of container ``name`` with one unit a value.

    Raises ``InvalidDefinition`` for what is not a unit's name, or cannot be an alias.
    """
    checked = []
    for key, values in directives:
        units = tuple(unit for value in values for unit in value.split())
        for unit in units:
            if key != "DefaultInstance" and not is_unit_name(unit):
                hint = f'did you mean "{unit}.target"?' if "." not in unit else None
                raise InvalidDefinition(
                    f"not the name of a unit: {unit}", where=f"[install] {key}", hint=hint
                )
            # systemd.unit(5): an instance has other names only as the same instance of another template.
            is_instance = not name.endswith("@")
            if key == "Alias" and is_instance and unit.partition("@")[2] != f"{name}.service":
                hint = f"only PREFIX@{name}.service can be"
                raise InvalidDefinition(f"cannot be an alias: {unit}", where=f"[install] {key}", hint=hint)
        checked.append((key, units))
    return tuple(checked)


def _render_header(name: str, sources: tuple[str, ...]) -> Iterator[str]:
    if not sources:
        yield f"container@{name}.service: written by usercontainerd; do not edit."
        return
    first, *others = sources
    yield f"Generated from {first}"
    for path in others:
        yield f"          with {path}"
    yield "by usercontainerd-generator. Do not edit this: edit that file, then run"
    yield "systemctl --user daemon-reload."


def _plan_source(sources: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    # systemctl warns when this file is newer than the unit; a path that no unit can name is better left out.
    try:
        yield from (("SourcePath", render_path(path)) for path in sources[:1])
    except InvalidArgument:
        return


def _plan_unit(definition: Definition) -> Iterator[tuple[str, str]]:
    # A name that has a tag and a digest is long; people know the tag.
    image = definition.image.partition("@")[0] or definition.image
    described = definition.description or f"Container {definition.name} ({image})"
    yield "Description", render_text(described) or f"Container {definition.name}"
    yield "Documentation", DOCUMENTATION
    yield from _plan_source(definition.sources)
    if definition.remove:
        yield "CollectMode", "inactive-or-failed"
    health = plan_health(definition.health)
    if health is not None and health.interval:
        yield "Upholds", health_timer(definition.name)
    if definition.desktop.notify:
        yield "OnFailure", f"{FAILURE_UNIT}{definition.name}.service"
    seen = {"/"}
    for mount in definition.mounts:
        if mount.type == "bind" and mount.source not in seen:
            seen.add(mount.source)
            try:
                yield "RequiresMountsFor", quote_path(mount.source)
            except InvalidArgument:
                continue  # it has a line end: nothing can wait for its mount


def _plan_service(definition: Definition, programs: Programs) -> Iterator[tuple[str, str]]:
    name = definition.name
    yield "Type", "notify"
    yield "NotifyAccess", "all"
    yield "ExecStart", render_command((programs.launch, name))
    yield "ExecStopPost", render_command((programs.cleanup, name), "-")
    if definition.restart != "no":
        yield "Restart", definition.restart.value
    yield "KillMode", "mixed" if definition.output == "journal" and not definition.terminal else "process"
    if definition.stop_timeout == 0:
        yield "KillSignal", "SIGKILL"
        yield "TimeoutStopSec", "10"
        yield "SuccessExitStatus", "SIGKILL"
        if definition.health.on_failure == "kill" and definition.restart not in ("no", "on-success"):
            yield "RestartForceExitStatus", "SIGKILL"  # of one that is unhealthy it is a failure all the same
    else:
        yield "TimeoutStopSec", render_seconds(definition.stop_timeout)
        yield from _plan_stop_signal(definition.stop_signal or "SIGTERM")
    yield "SyslogIdentifier", render_text(name)
    yield "Slice", SLICE
    yield "Delegate", "yes"
    yield "DelegateSubgroup", SUBGROUP
    yield "OOMPolicy", "stop"


def _plan_stop_signal(signal: str) -> Iterator[tuple[str, str]]:
    if signal != "SIGTERM":
        yield "KillSignal", signal
    number = _SIGNAL_NUMBERS.get(signal)
    statuses = [] if number is None else [str(128 + number)]
    if signal not in _CLEAN_SIGNALS:
        statuses.append(signal)
    yield "SuccessExitStatus", " ".join(statuses)


def _plan_resources(resources: Resources) -> Iterator[tuple[str, str]]:
    swap = resources.memory if resources.swap is None else resources.swap
    for key, size in (
        ("MemoryHigh", resources.memory_high),
        ("MemoryMax", resources.memory),
        ("MemorySwapMax", swap),
    ):
        if size is not None:
            yield key, render_size(size)
    if resources.cpus is not None:
        yield "CPUQuota", render_quota(resources.cpus)
    if resources.cpu_weight is not None:
        yield "CPUWeight", str(resources.cpu_weight)
    pids = DEFAULT_PIDS if resources.pids is None else resources.pids
    yield "TasksMax", str(pids) if pids > 0 else "infinity"
    if resources.io_weight is not None:
        yield "IOWeight", str(resources.io_weight)


def _add_section(unit: UnitFile, section: str, ours: tuple[tuple[str, str], ...], theirs: Directives) -> None:
    replaced = {key for key, _ in theirs if key not in LISTS}
    unit.add_all(section, (pair for pair in ours if pair[0] not in replaced))
    try:
        unit.add_all(section, ((key, value) for key, values in theirs for value in values))
    except InvalidArgument as error:
        raise InvalidDefinition(error.what, where=error.where) from error


def render_size(size: int) -> str:
    """Return bytes as systemd reads them (powers of 1024), ``infinity`` for a negative number: no limit."""
    if size < 0:
        return "infinity"
    for factor, letter in _UNITS_OF_SIZE:
        if size and size % factor == 0:
            return f"{size // factor}{letter}"
    return str(size)


def render_quota(cpus: float) -> str:
    """Return processors as a percentage of one; systemd knows two decimals."""
    return f"{max(cpus * 100, 0.01):.2f}".rstrip("0").rstrip(".") + "%"


def render_seconds(seconds: float) -> str:
    """Return a span as systemd.time(7) reads it; negative or infinite: ``infinity``."""
    if seconds < 0 or seconds == float("inf"):
        return "infinity"
    if seconds == int(seconds):
        return str(int(seconds))
    return f"{max(round(seconds * 1000), 1)}ms"
