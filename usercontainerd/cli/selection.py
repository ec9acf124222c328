"""Which containers a verb is about: those that are named, or those that ``--all``, ``--filter`` and their like mean.

The named ones are a fast path: what lists containers is imported where it is needed.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.containers.listing import Container
    from usercontainerd.runtime.summary import Summary
    from usercontainerd.systemd.manager import Manager

# As engine.containers.State; a test compares them.
_STATES = (
    "created",
    "starting",
    "running",
    "paused",
    "stopping",
    "restarting",
    "exited",
    "failed",
    "invalid",
)
_HEALTH = ("health=healthy", "health=none", "health=starting", "health=unhealthy")
FILTERS = (
    "name=",
    "id=",
    "label=",
    "ancestor=",
    "exited=",
    *(f"status={state}" for state in _STATES),
    *_HEALTH,
)
CIDFILE = Option(
    "--cidfile FILE...", "the container whose ID is in the file, as `create --cidfile` writes it"
)
LATEST = Option("-l, --latest", "the newest container")
_MAX_CIDFILE = 256  # bytes


def read_words(call: Call) -> list[str]:
    """Return the names and IDs that are given; none if an option says which are meant. Raises ``InvalidArgument``."""
    options = call.options
    words = [*call.words, *map(read_cidfile, options.values("cidfile"))]
    choices = [key for key in ("all", "filter", "latest", "running") if options.given(key)]
    if choices and (words or len(choices) > 1):
        raise InvalidArgument(f"--{choices[0]} says which containers are meant", hint="name none beside it")
    if not choices and not words:
        usage = f"usercontainer {call.verb} [OPTIONS] CONTAINER [CONTAINER...]"
        raise InvalidArgument("an argument is missing", hint=f"usage: {usage}")
    return words


def select_names(call: Call, manager: Manager, belongs: Callable[[Container], bool]) -> list[str]:
    """Return the containers that the options mean, where none is named; of ``--all`` those that ``belong``.

    Raises ``InvalidArgument`` for a filter that there is not.
    """
    from usercontainerd.cli.listing import parse_filters
    from usercontainerd.engine.containers.listing import select_containers

    options = call.options
    filters = parse_filters(options.values("filter"))
    chosen = list_all(call, manager)
    if filters:
        chosen = select_containers(chosen, filters)
    elif options.flag("latest"):
        chosen = chosen[:1]
    elif options.flag("running"):
        chosen = [container for container in chosen if container.is_alive]
    else:
        chosen = [container for container in chosen if options.flag("all") and belongs(container)]
    return [container.name for container in chosen]


def list_all(call: Call, manager: Manager, *, everything: bool = True) -> list[Container]:
    """Return all containers, the newest first; without ``everything`` those that are alive."""
    from usercontainerd.engine.containers.listing import list_containers, list_units

    def summarise(name: str) -> Summary:
        from usercontainerd.engine.containers.summaries import summarise_definition

        return summarise_definition(call.context(), name)

    return list_containers(call.paths, list_units(manager), summarise, everything=everything)


def read_cidfile(path: str) -> str:
    """Return the ID that a file holds. Raises ``InvalidArgument``."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_CIDFILE).decode("ascii", "replace").partition("\n")[0].strip()
    except OSError as error:
        raise InvalidArgument(f"cannot read the ID: {error.strerror}", where=path) from error
    if not text:
        raise InvalidArgument("no container's ID is in there", where=path)
    return text
