"""Everything about a container, with docker's and podman's names where they have some.

What runs is told by systemd; the rest is what the definition and its image mean now, which for a container that runs
may be newer than what it was started from.
"""

from __future__ import annotations

import math
import os
from functools import partial

from usercontainerd.base.errors import InvalidDefinition, NoSuchContainer
from usercontainerd.base.names import unit_name
from usercontainerd.definition.health import plan_health
from usercontainerd.definition.model import MountType, Restart
from usercontainerd.engine.containers.health_plans import merge_image_health
from usercontainerd.engine.containers.listing import State, choose_summary, derive_state
from usercontainerd.engine.containers.lookup import container_id, find_group, find_init, is_made
from usercontainerd.engine.containers.output_choice import read_reason
from usercontainerd.engine.containers.summaries import summarise_definition
from usercontainerd.engine.definitions import read_definition
from usercontainerd.engine.images.local import find_image, open_images
from usercontainerd.engine.images.newer import NewerImages
from usercontainerd.kernel.cgroups import is_frozen
from usercontainerd.oci.image import ImageConfiguration
from usercontainerd.oci.platform import Platform
from usercontainerd.runtime.health import read_check, read_last_state, read_state
from usercontainerd.runtime.specification import plan_arguments, plan_hostname
from usercontainerd.runtime.summary import read_exit, shorten_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.definition.model import Definition, Mount
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager

NO_IMAGE = ImageConfiguration(Platform("linux", "", ""), ())
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def inspect_container(context: Context, manager: Manager, name: str) -> dict[str, Any]:
    """Return container ``name`` as an object. Raises ``InvalidDefinition``, ``NoSuchContainer``."""
    properties = manager.unit_properties(unit_name(name))
    try:
        definition = read_definition(context, name).definition
    except (InvalidDefinition, NoSuchContainer) as error:
        definition = None
        problem = str(error)
    unit = {
        "Name": unit_name(name),
        **{
            key: properties.get(key)
            for key in (
                "LoadState",
                "ActiveState",
                "SubState",
                "Result",
                "StatusText",
                "FragmentPath",
                "ControlGroup",
                "NeedDaemonReload",
                "UnitFileState",
            )
        },
    }
    active = str(properties.get("ActiveState", "inactive"))
    summary = choose_summary(context.paths, name, active, partial(summarise_definition, context))
    common = {
        "Id": container_id(name),
        "Name": name,
        "State": describe_state(context, name, properties),
        "UpdateAvailable": NewerImages(context).has_newer(summary),
        "RestartCount": properties.get("NRestarts", 0),
        "Unit": unit,
    }
    if definition is None:
        return {**common, "Definition": {"Sources": [], "Problem": problem}}
    return {**common, **describe_definition(context, definition)}


def describe_state(context: Context, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """docker's ``State``, from systemd's properties and the record of the last end."""
    active = str(properties.get("ActiveState", "inactive"))
    alive = active not in ("inactive", "failed")
    record = None if alive else read_exit(context.paths.container_data(name))
    state = derive_state(active, str(properties.get("SubState", "")), record)
    group = find_group(context.paths, name) if state == State.RUNNING else None
    if group is not None and is_frozen(group):
        state = State.PAUSED
    init = find_init(context.paths, name)
    if init is not None:
        os.close(init.fd)
    started = (
        properties.get("ExecMainStartTimestamp", 0) / 1e6 if alive else (record.started if record else 0)
    )
    return {
        "Status": state,
        "Running": state == State.RUNNING,
        "Paused": state == State.PAUSED,
        "Restarting": state == State.RESTARTING,
        "OOMKilled": properties.get("Result") == "oom-kill"
        or (record is not None and record.result == "oom-kill"),
        "Dead": False,
        "Pid": init.pid if init is not None else 0,
        "ExitCode": record.status if record is not None else 0,
        "Error": str(properties.get("StatusText") or "") if state == State.FAILED else "",
        "StartedAt": format_rfc3339(started),
        "FinishedAt": format_rfc3339(record.finished if record is not None else 0),
        "Health": describe_health(context, name, alive),
    }


def describe_health(context: Context, name: str, alive: bool) -> dict[str, Any]:
    """docker's ``Health`` of a container that is checked; of one that is not, podman's empty one.

    Of a container that does not run any more it is what was found last.
    """
    paths = context.paths
    check = read_check(paths.bundle(name))
    state = None
    if check is not None:
        state = read_state(paths, name) if alive else read_last_state(paths, name)
    return {
        "Status": "" if state is None else state.state,
        "FailingStreak": 0 if state is None else state.streak,
        "Log": [
            {
                "Start": format_rfc3339(each.start),
                "End": format_rfc3339(each.end),
                "ExitCode": each.status,
                "Output": each.output,
            }
            for each in (() if state is None else state.log)
        ],
    }


def describe_healthcheck(definition: Definition, image: ImageConfiguration) -> dict[str, Any]:
    """docker's ``Healthcheck`` and podman's ``HealthcheckOnFailureAction``, if health is checked. Pure.

    Times are in nanoseconds, as docker has them.
    """
    health = merge_image_health(definition.health, image)
    plan = plan_health(health)
    if plan is None:
        return {}
    return {
        "Healthcheck": {
            "Test": list(health.command or ()),
            "Interval": round(plan.interval * 1e9),
            "Timeout": round(plan.timeout * 1e9),
            "StartPeriod": round(plan.start_period * 1e9),
            "Retries": plan.retries,
        },
        "HealthcheckOnFailureAction": plan.on_failure.value,
    }


def format_rfc3339(seconds: float) -> str:
    """A time as docker writes it, in UTC; 0 is Go's zero time."""
    if not seconds:
        return NEVER
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def describe_definition(context: Context, definition: Definition) -> dict[str, Any]:
    """What the definition and its image mean."""
    record = find_image(context, definition.image)
    image = NO_IMAGE if record is None else open_images(context).configuration(record)
    arguments = plan_arguments(definition, image)
    created = os.stat(definition.sources[0]).st_mtime if definition.sources else 0.0
    return {
        "Created": format_rfc3339(created),
        "Path": arguments[0] if arguments else "",
        "Args": list(arguments[1:]),
        "Image": "" if record is None else str(record.id),
        "ImageName": shorten_image(definition.image),
        "ImageDigest": "" if record is None else str(record.manifest),
        "Driver": "overlay",
        "Config": describe_config(definition, image),
        "HostConfig": describe_host_config(definition, describe_output(context, definition)),
        "Mounts": [describe_mount(context, mount) for mount in definition.mounts],
        "NetworkSettings": {"Ports": describe_ports(definition), "Networks": {definition.network.value: {}}},
        "BundlePath": context.paths.bundle(definition.name),
        "Definition": {
            "Sources": list(definition.sources),
            "Created": is_made(context.paths, "".join(definition.sources[:1])),
            "WritableLayer": definition.writable_layer.value,
            "Pull": definition.pull.value,
        },
    }


def describe_config(definition: Definition, image: ImageConfiguration) -> dict[str, Any]:
    """docker's ``Config``: what is in the container. Pure."""
    environment = {**dict(image.environment), **dict(definition.environment)}
    command = (
        image.command if definition.command is None and definition.entrypoint is None else definition.command
    )
    entrypoint = image.entrypoint if definition.entrypoint is None else definition.entrypoint
    user = definition.user if definition.user is not None else image.user
    return {
        "Hostname": plan_hostname(definition),
        "User": user if definition.group is None else f"{user}:{definition.group}",
        "Tty": definition.terminal,
        "OpenStdin": definition.interactive,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Cmd": None if command is None else list(command),
        "Entrypoint": None if entrypoint is None else list(entrypoint),
        "Image": definition.image,
        "WorkingDir": definition.working_directory or image.working_directory or "/",
        "Labels": {**dict(image.labels), **dict(definition.labels)},
        "Annotations": dict(definition.annotations),
        **describe_healthcheck(definition, image),
        "ExposedPorts": {port: {} for port in image.exposed_ports},
        "StopSignal": definition.stop_signal or image.stop_signal or "SIGTERM",
        # docker's clients read whole seconds into an integer, and know -1 for no end.
        "StopTimeout": -1 if math.isinf(definition.stop_timeout) else math.ceil(definition.stop_timeout),
    }


def describe_output(context: Context, definition: Definition) -> dict[str, str]:
    """How the output reaches the journal, and why: as was found when the container was prepared, or as is asked for."""
    reason = read_reason(context.paths.bundle(definition.name))
    if reason is None:
        return {"output": definition.output.value}
    return {"output": "pipe", "reason": reason} if reason else {"output": "journal"}


def describe_host_config(definition: Definition, output: dict[str, str]) -> dict[str, Any]:
    """docker's ``HostConfig``: what surrounds the container; numbers that are not limited are 0. Pure."""
    resources, security = definition.resources, definition.security
    swap = resources.memory if resources.swap is None else resources.swap
    options = ["no-new-privileges"] if security.no_new_privileges else []
    if security.seccomp != "default":
        options.append(f"seccomp={security.seccomp}")
    return {
        "NetworkMode": definition.network.value,
        "AutoRemove": definition.remove,
        "PortBindings": describe_ports(definition),
        "RestartPolicy": {
            "Name": "" if definition.restart is Restart.NO else definition.restart.value,
            "MaximumRetryCount": 0,
        },
        "Binds": [
            f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"
            for mount in definition.mounts
            if mount.type is not MountType.TMPFS
        ],
        "Tmpfs": {mount.target: "" for mount in definition.mounts if mount.type is MountType.TMPFS},
        "CapAdd": list(security.add_capabilities),
        "CapDrop": list(security.drop_capabilities),
        "Privileged": False,
        "ReadonlyRootfs": security.read_only,
        "SecurityOpt": options,
        "UsernsMode": security.user_namespace.value,
        "Init": definition.init,
        "Memory": resources.memory or 0,
        "MemorySwap": 0 if resources.memory is None else -1 if swap == -1 else resources.memory + (swap or 0),
        "NanoCpus": round((resources.cpus or 0) * 1e9),
        "CpuWeight": resources.cpu_weight or 0,
        "IOWeight": resources.io_weight or 0,
        "PidsLimit": resources.pids or 0,
        "LogConfig": {"Type": "journald", "Config": output},
    }


def describe_mount(context: Context, mount: Mount) -> dict[str, Any]:
    """One of docker's ``Mounts``. Pure."""
    shown: dict[str, Any] = {"Type": mount.type.value}
    source = mount.source
    if mount.type is MountType.VOLUME:
        shown["Name"] = mount.source
        source = f"{context.paths.data}/volumes/{mount.source}/_data"
    return {
        **shown,
        "Source": source,
        "Destination": mount.target,
        "Mode": ",".join(mount.options),
        "RW": not mount.read_only,
    }


def describe_ports(definition: Definition) -> dict[str, list[dict[str, str]]]:
    """Published ports as docker has them: ``{"80/tcp": [{"HostIp": …, "HostPort": …}]}``. Pure."""
    ports: dict[str, list[dict[str, str]]] = {}
    for port in definition.ports:
        for offset in range(port.length):
            ports.setdefault(f"{port.container + offset}/{port.protocol}", []).append(
                {"HostIp": port.address or "0.0.0.0", "HostPort": str(port.host + offset)}  # noqa: S104
            )
    return ports
