"""Making a container at run time: its definition is written where the generator finds it after a reboot, and its unit
where systemd finds it at once.

The definition names the image by digest, too: a container stays on the image that it was made from, as in docker.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import AlreadyExists, InvalidArgument
from usercontainerd.base.names import check_container_name, health_timer, unit_name
from usercontainerd.base.records import replace
from usercontainerd.definition.model import MountType, Port
from usercontainerd.definition.toml_reader import parse_table
from usercontainerd.definition.vocabulary import normalise_signal
from usercontainerd.engine.containers.health_plans import merge_image_health
from usercontainerd.engine.containers.lookup import is_known
from usercontainerd.engine.containers.naming import generate_name
from usercontainerd.engine.containers.sweeping import sweep_removed
from usercontainerd.engine.definitions import build_owner
from usercontainerd.engine.images.local import open_images
from usercontainerd.kernel.atomicfile import FileLock, explain_write_error, write_atomic
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.oci.reference import parse_reference
from usercontainerd.runtime.specification import plan_arguments
from usercontainerd.systemd.unit import build_health_timer, build_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.definition.diagnostic import Diagnostic
    from usercontainerd.definition.model import Definition
    from usercontainerd.engine.context import Context
    from usercontainerd.oci.image import ImageConfiguration
    from usercontainerd.store.records import ImageRecord


def choose_name(context: Context, wanted: str | None) -> str:
    """Return ``wanted`` or a generated name. Raises ``AlreadyExists``, ``InvalidArgument``."""
    if wanted is None:
        return generate_name(lambda name: is_known(context.paths, name))
    check_container_name(wanted)
    refuse_masked(context, wanted)
    sweep_removed(context)
    if is_known(context.paths, wanted):
        raise AlreadyExists(
            f'the name "{wanted}" is taken', hint=f"usercontainer rm {wanted}, or another --name"
        )
    return wanted


def refuse_masked(context: Context, name: str) -> None:
    """Raise ``InvalidArgument`` if somebody has masked the unit: it is not ours to write over, and would not start."""
    paths, unit = context.paths, unit_name(name)
    config = os.path.dirname(paths.config)
    for directory, option in ((f"{config}/systemd/user", ""), (paths.runtime_units, "--runtime ")):
        if os.path.realpath(f"{directory}/{unit}") == os.devnull:
            raise InvalidArgument(
                "the unit is masked", where=unit, hint=f"systemctl --user unmask {option}{unit}"
            )


def plan_container(
    context: Context, name: str, table: dict[str, Any], directory: str
) -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    """Return what ``table`` means (see ``parse_table``), or what is wrong with it.

    Relative paths start at ``directory``. A bind mount's source has to exist, as in podman.
    """
    definition, diagnostics = parse_table(
        name,
        {"writable_layer": "fresh" if table.get("remove") is True else "keep", **table},
        build_owner(context),
        directory,
    )
    for mount in () if definition is None else definition.mounts:
        if mount.type is MountType.BIND and not mount.create and not os.path.lexists(mount.source):
            raise InvalidArgument(
                f"the source of the mount on {mount.target} does not exist", where=mount.source
            )
    return definition, diagnostics


def complete_definition(
    definition: Definition, record: ImageRecord, image: ImageConfiguration, *, publish_all: bool = False
) -> Definition:
    """Fix what depends on the image: its digest, stop signal and health check, with ``publish_all`` its exposed ports.

    Raises ``InvalidArgument`` if neither image nor definition says what to run.
    """
    if not plan_arguments(definition, image):
        raise InvalidArgument(
            "neither the image nor the command line says what to run", where=definition.image
        )
    return replace(
        definition,
        image=pin_image(definition.image, record),
        stop_signal=definition.stop_signal or normalise_signal(image.stop_signal or ""),
        health=merge_image_health(definition.health, image),
        ports=(*definition.ports, *(plan_exposed_ports(definition, image) if publish_all else ())),
    )


def pin_image(text: str, record: ImageRecord) -> str:
    """Return a reference that means this image and no later one of its name; an ID for an image without a name."""
    names = [name.name for name in record.names]
    try:
        wanted = str(parse_reference(text).with_default_tag())
    except InvalidArgument:
        wanted = ""
    chosen = next((name for name in names if name == wanted or name.endswith(f"/{wanted}")), None)
    chosen = chosen or (names[0] if names else None)
    if chosen is None:
        return str(record.id)
    return chosen if "@" in chosen else f"{chosen}@{record.manifest}"


def plan_exposed_ports(definition: Definition, image: ImageConfiguration) -> tuple[Port, ...]:
    """Return a port of the host for each that the image exposes and that is not published yet."""
    taken = {
        (port.container + offset, port.protocol) for port in definition.ports for offset in range(port.length)
    }
    ports = []
    for text in image.exposed_ports:
        number, _, protocol = text.partition("/")
        protocol = protocol or "tcp"
        if not number.isdecimal() or protocol not in ("tcp", "udp") or (int(number), protocol) in taken:
            continue
        ports.append(Port(find_free_port(protocol), int(number), protocol=protocol))
    return tuple(ports)


def find_free_port(protocol: str, address: str = "") -> int:
    """Return a port that nobody uses just now, of those that the kernel hands out (ip(7), ip_local_port_range)."""
    import socket

    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise InvalidArgument(f"no port can be had: {error.strerror}", where=address or None) from error
        port: int = probe.getsockname()[1]
        return port


def render_created(definition: Definition) -> str:
    """The text of the definition of a container that is made at run time."""
    from usercontainerd.definition.toml_writer import render_definition

    name = definition.name
    return f"# Made by `usercontainer create`; `usercontainer rm {name}` removes it.\n{render_definition(definition)}"


def create_container(
    context: Context, definition: Definition, record: ImageRecord, *, publish_all: bool = False
) -> Definition:
    """Write definition and unit of a new container; on return `systemctl --user start` works.

    The definition of one that is removed when it has ended lies in the runtime directory: no reboot leaves it behind.
    Raises ``AlreadyExists``, ``InvalidArgument``, ``StoreError``.
    """
    paths = context.paths
    image = open_images(context).configuration(record)
    name = definition.name
    place = paths.passing_definitions if definition.remove else paths.created_definitions
    path = f"{place}/{name}.toml"
    whole = replace(complete_definition(definition, record, image, publish_all=publish_all), sources=(path,))
    unit = build_unit(whole, context.programs)
    text = render_created(whole)
    for directory in (place, f"{paths.data}/locks", paths.runtime_units):
        try:
            make_private_directories(directory)
        except OSError as error:
            raise explain_write_error(error, directory) from error
    with FileLock(f"{paths.data}/locks/created"):
        refuse_masked(context, name)
        if is_known(paths, name):
            raise AlreadyExists(f'the name "{name}" is taken')
        write_atomic(path, text.encode("utf-8", "surrogateescape"))
    timer = build_health_timer(whole)
    if timer:
        write_atomic(f"{paths.runtime_units}/{health_timer(name)}", timer.encode(), mode=0o644, sync=False)
    write_atomic(f"{paths.runtime_units}/{unit_name(name)}", unit.encode(), mode=0o644, sync=False)
    return whole
