"""The names that may stand in a place of a command line: containers, images, registries and what else lives.

One table says what each word of the verbs' usage lines and each metavariable of their options stands for; a test
keeps it whole. A verb that wants something else of its own is in ``SPECIAL``.
"""

from __future__ import annotations

from usercontainerd.base.errors import SystemdError
from usercontainerd.cli.call import Call
from usercontainerd.cli.completion_slot import Answer, Directive
from usercontainerd.cli.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usercontainerd.cli.completion_slot import Slot
    from usercontainerd.store.records import ImageRecord

    Source = Callable[[Slot, Call], Answer]

# Verbs that have to do with running containers only, or with the others only.
RUNNING = ("exec", "healthcheck run", "kill", "pause", "stats", "stop", "top", "unpause", "wait")
STOPPED = ("start",)
_FEWEST_DIGITS = 2  # of an ID: with fewer, everything would match something
_HEX = frozenset("0123456789abcdef")


def complete_slot(slot: Slot, environment: dict[str, str]) -> Answer:
    """Return what may stand in ``slot``. Raises whatever asking for it raises."""
    option = slot.option
    if option is not None and option.values:
        return Answer(dict.fromkeys(option.values, ""))
    words = [word for word in slot.name.split("|") if word == word.lower()]
    source = SPECIAL.get((slot.verb.name, slot.name if option is None else option.names[-1]))
    for name in slot.name.split("|"):
        source = source or SOURCES.get(name)
    answer = Answer() if source is None else source(slot, Call("", Options(), environment))
    answer.candidates.update(dict.fromkeys(words, ""))
    return answer


def list_files(_slot: Slot, _call: Call) -> Answer:
    """The shell knows files best."""
    return Answer(directive=Directive.FILES)


def list_directories(_slot: Slot, _call: Call) -> Answer:
    """And directories."""
    return Answer(directive=Directive.DIRECTORIES)


def list_nothing(_slot: Slot, _call: Call) -> Answer:
    """Only the user knows."""
    return Answer()


def list_container_names(slot: Slot, call: Call) -> Answer:
    """Containers that the verb can work on; by their IDs, where one is begun."""
    from usercontainerd.engine.containers.listing import list_units
    from usercontainerd.engine.containers.lookup import SHORT_ID, container_id, list_known

    names = {name for name in list_known(call.paths) if not name.endswith("@")}
    units = {}
    try:
        with call.connect() as manager:
            units = list_units(manager)
    except SystemdError:
        pass  # then nothing runs
    alive = {name for name, unit in units.items() if unit.active not in ("inactive", "failed")}
    names |= alive
    if slot.verb.name in RUNNING:
        names &= alive
    elif slot.verb.name in STOPPED:
        names -= alive
    found = {}
    for name in sorted(names.difference(slot.before)):
        found[name] = describe_container(call, name, name in alive)
        if _is_begun_id(slot.prefix) and (identity := container_id(name)).startswith(slot.prefix):
            found[identity[: max(SHORT_ID, len(slot.prefix))]] = name
    return Answer(found)


def describe_container(call: Call, name: str, alive: bool) -> str:
    """Whether it runs, and its image as far as that is known without reading its definition."""
    from usercontainerd.engine.containers.listing import read_cached_summary
    from usercontainerd.runtime.summary import read_summary

    summary = read_summary(f"{call.paths.bundle(name)}/summary") or read_cached_summary(call.paths, name)
    return ", ".join(
        filter(None, ("runs" if alive else "does not run", "" if summary is None else summary.image))
    )


def list_image_names(slot: Slot, call: Call) -> Answer:
    """Names of images; also without their registry, where a short name finds them; IDs that are begun."""
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.layout import Store

    found = {}
    images = ImageStore(Store(call.paths)).all()
    for record in images:
        found.update(dict.fromkeys((name.name for name in record.names), record.short_id))
        if _is_begun_id(slot.prefix) and record.id.hex.startswith(slot.prefix):
            found[record.id.hex[: max(len(record.short_id), len(slot.prefix))]] = ", ".join(
                name.name for name in record.names
            )
    if slot.prefix and not any(name.startswith(slot.prefix) for name in found):
        found.update(list_short_names(images, slot.prefix, call))
    # An image is named once; what it is to be called may be much the same.
    besides = () if slot.name in ("TARGET", "DESTINATION") else slot.before
    return Answer({name: text for name, text in sorted(found.items()) if name not in besides})


def list_short_names(images: Iterable[ImageRecord], prefix: str, call: Call) -> dict[str, str]:
    """``busybox:latest`` for docker.io/library/busybox:latest, if registries.conf has docker.io searched."""
    from usercontainerd.engine.images.local import read_registries

    found = {}
    searched = ("localhost", *read_registries(call.context()).search)
    for record in images:
        for name in record.names:
            registry, _, path = name.name.partition("/")
            if registry not in searched:
                continue
            for short in (path, path.removeprefix("library/") if registry == "docker.io" else path):
                if short.startswith(prefix):
                    found[short] = name.name
    return found


def list_index_names(slot: Slot, call: Call) -> Answer:
    """Names of the indexes (manifest lists) that are made here."""
    from usercontainerd.cli.images import list_indexes
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.layout import Store

    records = list_indexes(ImageStore(Store(call.paths)))
    names = sorted(name.name for record in records for name in record.names)
    return Answer({name: "index" for name in names if name not in slot.before})


def list_all_names(slot: Slot, call: Call) -> Answer:
    """Containers and images."""
    containers, images = list_container_names(slot, call), list_image_names(slot, call)
    return Answer({**images.candidates, **containers.candidates})


def list_names_of_image(slot: Slot, call: Call) -> Answer:
    """The names of the image that is named before."""
    from usercontainerd.engine.images.local import find_image

    record = find_image(call.context(), slot.before[0])
    names = () if record is None else record.names
    return Answer({name.name: "" for name in names if name.name not in slot.before})


def list_registries(slot: Slot, call: Call) -> Answer:
    """The registries that are searched, and those with a login."""
    from usercontainerd.engine.images.local import read_registries

    found = dict.fromkeys(read_registries(call.context()).search, "searched for short names")
    return Answer({**found, **list_logins(slot, call).candidates})


def list_logins(_slot: Slot, call: Call) -> Answer:
    """What there is a login for."""
    from usercontainerd.engine.registries.logins import list_login_keys

    return Answer(dict.fromkeys(list_login_keys(call.context()), "logged in"))


def list_variables(_slot: Slot, call: Call) -> Answer:
    """The caller's own environment variables."""
    return Answer(dict.fromkeys(sorted(call.environment), ""))


def list_container_paths(slot: Slot, call: Call) -> Answer:
    """A file of the host, or a container whose file it is."""
    if ":" in slot.prefix:
        return Answer()
    names = list_container_names(slot, call).candidates
    return Answer({f"{name}:": text for name, text in names.items()}, Directive.FILES | Directive.NO_SPACE)


def list_volumes(slot: Slot, call: Call) -> Answer:
    """A directory of the host, or a volume; what follows a colon lies in the container."""
    if ":" in slot.prefix:
        return Answer()
    from usercontainerd.engine.containers.volumes import list_volume_names

    volumes = {f"{name}:": "volume" for name in list_volume_names(call.context())}
    return Answer(volumes, Directive.DIRECTORIES)


def list_capabilities(slot: Slot, _call: Call) -> Answer:
    """capabilities(7); with ``CAP_`` if it is begun so."""
    from usercontainerd.runtime.capabilities import ALL_CAPABILITIES

    names = [name if slot.prefix.startswith("C") else name.removeprefix("CAP_") for name in ALL_CAPABILITIES]
    return Answer(dict.fromkeys(("ALL", *names), ""))


def list_signals(_slot: Slot, _call: Call) -> Answer:
    """signal(7)."""
    from signal import Signals

    return Answer({each.name: str(each.value) for each in Signals})


def list_architectures(_slot: Slot, _call: Call) -> Answer:
    """Go's names of architectures."""
    from usercontainerd.oci.platform import ARCHITECTURES

    return Answer(dict.fromkeys(ARCHITECTURES, ""))


def list_platforms(_slot: Slot, _call: Call) -> Answer:
    """Go's names of platforms."""
    from usercontainerd.oci.platform import ARCHITECTURES

    return Answer(dict.fromkeys((f"linux/{each}" for each in ARCHITECTURES), ""))


def list_booleans(_slot: Slot, _call: Call) -> Answer:
    """What a flag may be."""
    return Answer({"true": "", "false": ""})


def _is_begun_id(prefix: str) -> bool:
    return len(prefix) >= _FEWEST_DIGITS and _HEX.issuperset(prefix)


NOTHING = (
    *(
        "AGE",
        "ARG",
        "COLUMN",
        "COMMAND",
        "CONDITION",
        "DRIVER",
        "DURATION",
        "FEATURE",
        "FIELD",
        "FORMAT",
        "INSTRUCTION",
        "KIND=VALUE",
    ),
    *(
        "LEVEL",
        "MODE",
        "NAME=VALUE",
        "NUMBER",
        "OPTION",
        "OPTIONS",
        "PASSWORD",
        "POLICY",
        "PORT[/PROTOCOL]",
        "SECONDS",
        "SIZE",
    ),
    *("TARGET[:OPTIONS]", "TEMPLATE", "TERM", "TEXT", "TIME", "TYPE", "USER", "USERNAME", "USER[:GROUP]"),
    *("USER[:PASSWORD]", "VARIANT", "VERSION", "WEIGHT", "[[ADDRESS:]PORT:]PORT"),
)
SOURCES: dict[str, Source] = {
    **dict.fromkeys(NOTHING, list_nothing),
    "ARCH": list_architectures,
    "ARCHITECTURE": list_architectures,
    "BOOLEAN": list_booleans,
    "CAPABILITY": list_capabilities,
    "CONTAINER": list_container_names,
    "CONTAINER:PATH": list_container_paths,
    "DESTINATION": list_image_names,
    "DIRECTORY": list_directories,
    "FILE": list_files,
    "IMAGE": list_image_names,
    "LIST": list_index_names,
    "NAME": list_nothing,
    "OS": list_nothing,
    "OS/ARCH[/VARIANT]": list_platforms,
    "PATH": list_files,
    "REGISTRY[/PATH]": list_registries,
    "REGISTRY[/REPOSITORY]": list_registries,
    "REPOSITORY[:TAG]": list_image_names,
    "SIGNAL": list_signals,
    "TARGET": list_image_names,
    "[SOURCE:]TARGET[:OPTIONS]": list_volumes,
}
# By verb, and the argument's name or the option's last one.
SPECIAL: dict[tuple[str, str], Source] = {
    ("create", "--env"): list_variables,
    ("create", "--workdir"): list_nothing,
    ("diff", "NAME"): list_all_names,
    ("exec", "--env"): list_variables,
    ("exec", "--workdir"): list_nothing,
    ("image import-storage", "IMAGE"): list_nothing,
    ("inspect", "NAME"): list_all_names,
    ("logout", "REGISTRY[/PATH]"): list_logins,
    ("unshare", "ARG"): list_files,
    ("unshare", "COMMAND"): list_files,
    ("untag", "NAME"): list_names_of_image,
}
