"""``usercontainer run``: ``create`` and ``start``, and staying with the container unless it is detached."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, UsercontainerError
from usercontainerd.cli.attached import stay
from usercontainerd.cli.container_options import REFUSED
from usercontainerd.cli.create import CREATION_OPTIONS, make_container
from usercontainerd.cli.lifecycle import ATTACH_REFUSED, SIG_PROXY
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.containers.attachment import Wishes
from usercontainerd.engine.containers.lookup import container_id
from usercontainerd.engine.containers.preparation import prepare_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import Options
    from usercontainerd.definition.model import Definition
    from usercontainerd.engine.context import Context

STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
RUN = Verb(
    "run",
    "IMAGE [COMMAND [ARG...]]",
    "Make a container from an image and run it",
    (
        *CREATION_OPTIONS,
        Option("-a, --attach STREAM...", "lend only these: stdin, stdout, stderr", tuple(STREAMS)),
        Option("-d, --detach", "print the ID as soon as it runs, and leave; its output is in the journal"),
        SIG_PROXY,
    ),
    fewest=1,
    leading=True,
    details="Returns the container's exit status, 128 and the number for a signal that killed it; 127 if the command\n"
    "does not exist, 126 if it cannot be executed, 125 if usercontainer itself failed. The container is the unit\n"
    "container@NAME.service, whose output is this command's own: only a detached one writes to the journal.",
    refused={**REFUSED, **ATTACH_REFUSED},
)


def run_run(call: Call) -> int:
    """Create, start, and wait for the end."""
    options = call.options
    wishes = read_wishes(options)
    context = call.context()
    definition = make_container(call, context)
    try:
        # Here rather than in the start of the unit: it saves a process, and what is wrong is said at once.
        lent = definition.remove and {1, 2} <= set(wishes.streams)
        prepare_container(context, definition.name, made=definition, lent=lent)
    except UsercontainerError:
        if definition.remove:
            forget(call, context, definition)
        raise
    status = stay(call, definition.name, wishes)
    if status == 0 and not wishes.waits:
        write_output(f"{container_id(definition.name)}\n")
    if status != 0 and definition.remove and os.path.lexists(definition.sources[0]):
        forget(call, context, definition)
    return status


def read_wishes(options: Options) -> Wishes:
    """What is to become of our streams. Raises ``InvalidArgument``."""
    if options.flag("detach"):
        if options.given("attach"):
            raise InvalidArgument("--detach and --attach exclude each other")
        return Wishes((), interactive=False, waits=False)
    interactive = options.flag("interactive")
    wanted = options.values("attach")
    for word in wanted:
        if word.lower() not in STREAMS:
            raise InvalidArgument(
                f'--attach: there is no stream "{word}"', hint=f"possible are {', '.join(STREAMS)}"
            )
    streams = {STREAMS[word.lower()] for word in wanted} or {0, 1, 2}
    if not interactive:
        streams.discard(0)
    if interactive and options.flag("tty") and not os.isatty(0):
        write_error("Warning: -t, but standard input is not a terminal\n")
    return Wishes(
        tuple(sorted(streams)), interactive=0 in streams, passes_signals=options.flag("sig-proxy", True)
    )


def forget(call: Call, context: Context, definition: Definition) -> None:
    """Remove a container whose unit has not come to clean up, since it was not started; one that runs goes on."""
    from usercontainerd.engine.containers.lifecycle import is_idle, remove_container

    with call.connect() as manager:
        if is_idle(manager, definition.name):
            remove_container(context, manager, definition.name)


VERBS = {"run": (RUN, run_run)}
