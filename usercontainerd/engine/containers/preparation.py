"""From a definition to a bundle that the launcher can start: the slow half of a start.

The bundle lies in the runtime directory (a tmpfs): after a reboot it is simply made again. The launch plan is
written last and removed first, so that a bundle with a plan is a whole one.
"""

from __future__ import annotations

import json
import os

from usercontainerd import __version__
from usercontainerd.base.errors import InvalidArgument, InvalidDefinition, RuntimeFailure
from usercontainerd.base.names import health_timer, unit_name
from usercontainerd.base.records import dataclass, replace
from usercontainerd.definition.model import (
    Definition,
    Network,
    Notify,
    Output,
    WritableLayer,
)
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.definition.vocabulary import normalise_signal
from usercontainerd.engine.containers.health_plans import find_health_plan, merge_image_health
from usercontainerd.engine.containers.lookup import is_made
from usercontainerd.engine.containers.output_choice import (
    REASON_FILE,
    choose_output,
    describe_command,
    learn_from_failure,
)
from usercontainerd.engine.containers.volumes import make_mount_sources, plan_filled_volumes
from usercontainerd.engine.definitions import read_definition, recall_definition
from usercontainerd.engine.images.local import ignore_progress, open_images
from usercontainerd.engine.registries.endpoints import SILENT, Conversation
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.kernel.atomicfile import explain_write_error, write_atomic
from usercontainerd.kernel.idmap import IdMap, explain_single_map, plan_single_map, read_id_map
from usercontainerd.kernel.trees import make_private_directories, remove_file
from usercontainerd.network.pasta import HOST_ADDRESS, PASTA, plan_pasta_arguments
from usercontainerd.network.resolver import build_hosts, build_resolv_conf
from usercontainerd.runtime.capabilities import plan_bounding_set
from usercontainerd.runtime.environment import parse_environment_file
from usercontainerd.runtime.health import HEALTH_FILE, render_health
from usercontainerd.runtime.identity import Identity, resolve_identity
from usercontainerd.runtime.plan import NEVER_CURRENT, LaunchPlan, render_plan, stamp_path
from usercontainerd.runtime.remains import layer_directory
from usercontainerd.runtime.removal import mark_for_removal
from usercontainerd.runtime.rootview import RootView, read_view, render_view, view_root
from usercontainerd.runtime.seccomp import load_seccomp
from usercontainerd.runtime.specification import (
    HostFiles,
    build_specification,
    is_init_system,
    plan_arguments,
    plan_exec_process,
    plan_hostname,
)
from usercontainerd.runtime.summary import build_summary, render_summary, shorten_image
from usercontainerd.store.records import name_file
from usercontainerd.systemd.renewal import reload_stale_unit
from usercontainerd.systemd.unit import build_health_timer, build_image_drop_in, build_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.definition.model import Resources
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.oci.image import ImageConfiguration
    from usercontainerd.runtime.streamnames import Command
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord

CRUN_PATHS = ("/usr/bin/crun", "/usr/local/bin/crun")
INIT_PATHS = (
    "/usr/libexec/catatonit/catatonit",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/lib/podman/catatonit",
)
RESOLV_CONF = "/etc/resolv.conf"
OWN_FILES = ("resolv.conf", "hosts", "hostname")  # of the bundle, bound into the container's /etc
MAX_ENVIRONMENT_FILE = 1 << 20


def prepare_container(
    context: Context,
    name: str,
    *,
    made: Definition | None = None,
    progress: Progress = ignore_progress,
    talk: Conversation = SILENT,
    notify_socket: str | None = None,
    lent: bool = False,
) -> None:
    """Make the bundle of container ``name``, pulling its image if its policy says so.

    ``notify_socket`` is the unit's, for a container that tells systemd itself when it is ready; ``lent``: its only run
    will have a caller's output; ``made`` is its definition, if the caller has just made it.
    """
    loaded = read_definition(context, name) if made is None else recall_definition(context, made)
    definition = loaded.definition
    record = pull_image(context, definition.image, policy=definition.pull, progress=progress, talk=talk)
    subject = read_subject(context, definition, record)
    arguments, image = subject.arguments, subject.image
    command = describe_command(definition, image, arguments, subject.environment)
    view = RootView()
    if subject.layers:
        sought = command if definition.output is Output.AUTO and not (definition.terminal or lent) else None
        view = view_image(context, subject, sought)
    identity = _find_identity(context, definition, image, subject.id_map, view)
    files = HostFiles(
        bundle=context.paths.bundle(name),
        init=_find_program(INIT_PATHS, "catatonit") if definition.init else None,
        notify_socket=_check_notify_socket(definition, notify_socket),
        volumes=make_mount_sources(context, name, definition.mounts),
    )
    private, profile = plan_private_files(subject, identity, files)
    learnt = learn_from_failure(context, definition, str(record.id), talk.notice)
    output = choose_output(definition, command, identity, view.stream_names or learnt, files.volumes)
    plan = build_plan(
        context,
        definition,
        id_map=subject.id_map,
        layers=len(subject.layers),
        init_system=is_init_system(arguments),
        pipe=output.pipe and not (definition.terminal or lent),
        volumes=files.volumes,
        inputs=(*loaded.watched, *subject.watched, *profile, *output.inputs),
    )
    private[REASON_FILE] = output.reason
    write_bundle(context, definition, subject.layers, private, plan)
    adapt_unit(context, definition, image)


def view_image(context: Context, subject: Subject, sought: Command | None) -> RootView:
    """Look into the image; its accounts, if nothing else is ``sought``, are known from the last look."""
    inspect_root, id_map, layers = context.programs.inspect_root, subject.id_map, subject.layers
    if sought is not None:
        return view_root(inspect_root, id_map, layers, sought)
    place = f"{context.paths.runtime}/accounts"
    # What a layer's directory can be read by depends on the map, too.
    path = f"{place}/{subject.record.id.hex}-{id_map.render().replace('/', '-')}"
    view = read_view(path)
    if view is None:
        view = view_root(inspect_root, id_map, layers)
        make_private_directories(place)
        write_atomic(path, render_view(view), sync=False)
    return view


@dataclass(frozen=True)
class Subject:
    """A definition with its image, and what the two together say.

    ``layers`` are directories, topmost first; ``environment`` is that of ``environment_files``; ``watched`` are the
    files that make it another one when they change, ``follows`` is the summary's.
    """

    definition: Definition
    record: ImageRecord
    image: ImageConfiguration
    layers: tuple[str, ...]
    id_map: IdMap
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    watched: tuple[str, ...]
    follows: str


def read_subject(context: Context, definition: Definition, record: ImageRecord) -> Subject:
    """Read what the image and the definition's files say. Raises ``InvalidArgument``, ``InvalidDefinition``…"""
    images = open_images(context)
    image = images.configuration(record)
    id_map = plan_user_namespace(context, definition)
    arguments = plan_arguments(definition, image)
    if not arguments:
        raise InvalidArgument(
            "neither the image nor the definition says what to run",
            where=definition.name,
            hint="set command",
        )
    environment, files = _read_environment_files(definition, dict(context.environment))
    return Subject(
        definition=definition,
        record=record,
        image=image,
        layers=tuple(reversed(images.layer_directories(record))),
        id_map=id_map,
        arguments=arguments,
        environment=environment,
        watched=(*watch_image(images, record), RESOLV_CONF, "/etc/subuid", "/etc/subgid", *files),
        follows=_find_followed_name(context, definition),
    )


def _find_followed_name(context: Context, definition: Definition) -> str:
    # A digest in it was written by `create`, or says which image the user wants, whatever its name means.
    if "@" not in definition.image or is_made(context.paths, "".join(definition.sources[:1])):
        return shorten_image(definition.image)
    return ""


def plan_private_files(
    subject: Subject, identity: Identity, files: HostFiles
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The texts of the bundle that the container does not see, and the files they are made from beside its own."""
    definition = subject.definition
    seccomp, profile = load_seccomp(
        definition.security.seccomp,
        plan_bounding_set(definition.security.add_capabilities, definition.security.drop_capabilities),
    )
    specification = build_specification(
        definition,
        subject.image,
        identity=identity,
        files=files,
        file_environment=subject.environment,
        seccomp=seccomp,
        group_five=not subject.id_map.single,
    )
    health = find_health_plan(definition, subject.image)
    summary = build_summary(
        definition,
        subject.arguments,
        subject.record.id,
        subject.image.labels,
        follows=subject.follows,
        checked=health is not None,
    )
    texts = {
        "config.json": json.dumps(specification),
        # For `exec` and `ps`: what they need of all this, without the time to parse it.
        "process.json": json.dumps(plan_exec_process(specification["process"])),
        "summary": render_summary(summary),
        HEALTH_FILE: "" if health is None else render_health(health),
    }
    return texts, (profile,) if profile else ()


def build_plan(
    context: Context,
    definition: Definition,
    *,
    id_map: IdMap,
    layers: int,
    init_system: bool,
    pipe: bool,
    volumes: tuple[tuple[str, str], ...],
    inputs: Iterable[str],
) -> LaunchPlan:
    """Gather what the launcher needs. ``inputs`` are the files that the bundle is made from."""
    with_pasta = definition.network is Network.PASTA
    asks_always = definition.pull in (PullPolicy.ALWAYS, PullPolicy.NEWER)
    return LaunchPlan(
        id_map=id_map,
        network=definition.network,
        layers=layers,
        data=context.paths.container_data(definition.name),
        crun=_find_program(CRUN_PATHS, "crun"),
        init_system=init_system,
        pipe=pipe,
        terminal=definition.terminal,
        interactive=definition.interactive,
        # What a person has written is not ours to remove.
        remove=definition.remove and _is_passing(context, definition),
        keep=definition.writable_layer is WritableLayer.KEEP,
        ready=definition.notify is Notify.STARTED,
        pasta=(_find_program((PASTA,), "passt"), *plan_pasta_arguments(definition.ports))
        if with_pasta
        else (),
        ports=((port.protocol, port.address, port.host, port.length) for port in definition.ports),
        cgroup=plan_repeated_limits(definition.resources),
        volumes=plan_filled_volumes(definition.mounts, volumes),
        stamps=(*stamp_inputs(inputs), *((NEVER_CURRENT,) if asks_always else ())),
    )


def _is_passing(context: Context, definition: Definition) -> bool:
    return os.path.dirname("".join(definition.sources[:1])) == context.paths.passing_definitions


def adapt_unit(context: Context, definition: Definition, image: ImageConfiguration) -> None:
    """Have systemd know what it cannot have known before: the image's stop signal, and a definition edited since."""
    stop_signal = normalise_signal(image.stop_signal) if image.stop_signal else None
    generated = build_health_timer(definition)
    whole = merge_image_health(definition.health, image)
    passing = "" if generated or whole == definition.health else build_health_timer(definition, whole)
    reload_stale_unit(
        context.paths.runtime_root,
        unit_name(definition.name),
        build_unit(definition, context.programs),
        build_image_drop_in(definition, stop_signal, with_timer=bool(passing)),
        timers=(health_timer(definition.name), generated, passing),
        bus_address=dict(context.environment).get("DBUS_SESSION_BUS_ADDRESS"),
    )


def watch_image(images: ImageStore, record: ImageRecord) -> list[str]:
    """The files that change when one of the image's names is moved to another image, or the image goes."""
    store = images.store
    return [
        f"{store.images}/{record.id.hex}.json",
        *(f"{store.names}/{name_file(name.name)}" for name in record.names),
    ]


def stamp_inputs(paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Stamp each path once, in order."""
    return tuple((path, stamp_path(path)) for path in dict.fromkeys(paths))


def plan_user_namespace(context: Context, definition: Definition) -> IdMap:
    """The ID map that the definition asks for."""
    if definition.security.user_namespace == "single":
        return plan_single_map(context.uid, context.gid)
    return read_id_map(context.uid, context.gid, context.user)


def plan_repeated_limits(resources: Resources) -> tuple[tuple[str, str], ...]:
    """The unit's limits as cgroup files (cgroup-v2.rst), for programs that read them in their own cgroup."""
    limits = []
    if resources.memory is not None:
        limits.append(("memory.max", str(resources.memory)))
    if resources.memory_high is not None:
        limits.append(("memory.high", str(resources.memory_high)))
    if resources.pids is not None:
        limits.append(("pids.max", str(resources.pids) if resources.pids > 0 else "max"))
    if resources.cpus is not None:
        limits.append(("cpu.max", f"{round(resources.cpus * 100000)} 100000"))
    return tuple(limits)


def _find_program(candidates: tuple[str, ...], package: str) -> str:
    for path in candidates:
        if os.access(path, os.X_OK):
            return path
    raise RuntimeFailure("is not installed", where=candidates[0], hint=f"install the package {package}")


def _check_notify_socket(definition: Definition, address: str | None) -> str | None:
    if definition.notify is not Notify.CONTAINER or not address:
        return None
    if not address.startswith("/"):
        raise RuntimeFailure(
            "systemd's notify socket is abstract and cannot be given to a container", where=address
        )
    return address


def _find_identity(
    context: Context,
    definition: Definition,
    image: ImageConfiguration,
    id_map: IdMap,
    view: RootView,
) -> Identity:
    wanted = definition.user if definition.user is not None else image.user
    if definition.group is not None:
        wanted = f"{wanted.partition(':')[0]}:{definition.group}"
    identity = resolve_identity(wanted, view.passwd, view.group, where=definition.image)
    if id_map.single:  # setgroups(2) is denied then: there is nothing to ask for
        identity = replace(identity, groups=())
    for kind, extents, numbers in (
        ("UID", id_map.uids, (identity.uid,)),
        ("GID", id_map.gids, (identity.gid, *identity.groups)),
    ):
        for number in numbers:
            if not any(extent.inside <= number < extent.inside + extent.length for extent in extents):
                if definition.security.user_namespace == "single":
                    raise InvalidArgument(
                        f'{kind} {number} is not mapped: with user_namespace = "single" only root is',
                        where=definition.image,
                        hint='leave user_namespace out, or set user = "0"',
                    )
                if id_map.single:
                    raise explain_single_map(context.user, context.uid, context.gid)
                raise InvalidArgument(
                    f"{kind} {number} is outside the {sum(e.length for e in extents)} IDs that are mapped",
                    where=definition.image,
                    hint="add a larger range to /etc/subuid and /etc/subgid",
                )
    return identity


def _read_environment_files(
    definition: Definition, inherited: dict[str, str]
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    pairs: list[tuple[str, str]] = []
    for entry in definition.environment_files:
        optional, path = entry.startswith("-"), entry.removeprefix("-")
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(MAX_ENVIRONMENT_FILE + 1)
        except FileNotFoundError:
            if optional:
                continue
            raise InvalidDefinition("the environment file does not exist", where=path) from None
        except OSError as error:
            raise InvalidDefinition(
                f"cannot read the environment file: {error.strerror}", where=path
            ) from error
        if len(text) > MAX_ENVIRONMENT_FILE:
            raise InvalidDefinition("the environment file is larger than 1 MiB", where=path)
        pairs += parse_environment_file(text, path, inherited)
    return tuple(pairs), tuple(path.removeprefix("-") for path in definition.environment_files)


def write_bundle(
    context: Context,
    definition: Definition,
    layers: tuple[str, ...],
    private: dict[str, str],
    plan: LaunchPlan,
) -> None:
    """Write everything that the launcher needs; the plan, which makes it valid, goes last.

    ``private`` are the texts that are not bound into the container.
    """
    name = definition.name
    bundle = context.paths.bundle(name)
    layer = layer_directory(plan.data)
    hostname = plan_hostname(definition)
    texts = {
        **private,
        "resolv.conf": build_resolv_conf(_read_resolv_conf(), definition.network),
        "hosts": build_hosts(hostname, name, HOST_ADDRESS if definition.network is Network.PASTA else None),
        "hostname": f"{hostname}\n",
        "containerenv": f'engine="usercontainerd-{__version__}"\nname="{name}"\nimage="{definition.image}"\n'
        "rootless=1\n",
    }
    try:
        for directory in (f"{bundle}/lower", f"{bundle}/rootfs", plan.data, context.paths.crun_root):
            make_private_directories(directory)
        if plan.remove:
            mark_for_removal(plan.data)
        remove_file(f"{bundle}/plan")
        for entry in os.listdir(f"{bundle}/lower"):
            os.unlink(f"{bundle}/lower/{entry}")
        for index, target in enumerate(layers):
            os.symlink(target, f"{bundle}/lower/{index}")
        for link in ("upper", "work"):
            remove_file(f"{bundle}/{link}")
            os.symlink(f"{layer}/{link}", f"{bundle}/{link}")
        for file, text in texts.items():
            # In place, not renamed: a container bound the old file and another mount of it may still be there.
            with open(f"{bundle}/{file}", "w", encoding="utf-8", errors="surrogateescape") as output:
                output.write(text)
            os.chmod(f"{bundle}/{file}", 0o600 if file in private else 0o644)
        # The container can write to these three: if it did, its next start gets them afresh.
        plan.stamps += stamp_inputs([f"{bundle}/{file}" for file in OWN_FILES])
        with open(f"{bundle}/plan.new", "w", encoding="utf-8", errors="surrogateescape") as output:
            output.write(render_plan(plan, __version__))
        os.rename(f"{bundle}/plan.new", f"{bundle}/plan")
    except OSError as error:
        raise explain_write_error(error, bundle) from error


def _read_resolv_conf() -> str:
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
