"""``usercontainer port``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, NoSuchContainer
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.cli.selection import LATEST, list_all
from usercontainerd.engine.containers.lookup import SHORT_ID, resolve_name
from usercontainerd.runtime.summary import parse_ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.containers.listing import Container

PORT = Verb(
    "port",
    "CONTAINER [PORT[/PROTOCOL]]",
    "Show the published ports of a container",
    (Option("-a, --all", "of all containers that run"), LATEST),
    most=2,
)


def run_port(call: Call) -> int:
    """Print a line for each port, or where one port leads to."""
    everything, latest = call.options.flag("all"), call.options.flag("latest")
    if everything == bool(call.words) and not latest:
        raise InvalidArgument(
            "name a container, or give --all", hint="usage: usercontainer port CONTAINER [PORT]"
        )
    with call.connect() as manager:
        containers = list_all(call, manager, everything=not everything)
    if everything:
        for each in containers:
            lines = (f"{each.id[:SHORT_ID]}\t{inside} -> {outside}\n" for inside, outside in read_ports(each))
            write_output("".join(lines))
        return 0
    words = list(call.words)
    one = containers[0] if latest and containers else find_container(call, containers, words.pop(0))
    wanted = words[0] if words else ""
    ports = [pair for pair in read_ports(one) if wanted in ("", pair[0], pair[0].removesuffix("/tcp"))]
    if wanted and not ports:
        raise InvalidArgument(f'port "{wanted}" is not published', where=one.name)
    write_output(
        "".join(f"{outside}\n" if wanted else f"{inside} -> {outside}\n" for inside, outside in ports)
    )
    return 0


def find_container(call: Call, containers: list[Container], word: str) -> Container:
    """The one of that name or ID. Raises ``NoSuchContainer``."""
    name = resolve_name(call.paths, word)
    for each in containers:
        if each.name == name:
            return each
    raise NoSuchContainer(f'no such container "{word}"')


def read_ports(container: Container) -> Iterator[tuple[str, str]]:
    """Each published port: (``80/tcp``, ``0.0.0.0:8080``)."""
    for address, outer, inner, length, protocol in parse_ports(container.summary.ports):
        shown = f"[{address}]" if ":" in address else address
        for offset in range(length):
            yield f"{inner + offset}/{protocol}", f"{shown}:{outer + offset}"


VERBS = {"port": (PORT, run_port)}
