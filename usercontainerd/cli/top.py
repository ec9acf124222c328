"""``usercontainer top``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_output
from usercontainerd.cli.selection import select_names
from usercontainerd.engine.containers.lookup import resolve_name
from usercontainerd.engine.containers.processes import COLUMNS, list_processes, parse_columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

TOP = Verb(
    "top",
    "CONTAINER [COLUMN...]",
    "Show the processes of a container",
    (Option("-l, --latest", "of the newest container"),),
    leading=True,
    details=f"Columns: {' '.join(COLUMNS)}\n-ef, aux and -o LIST are understood, as ps(1) has them. Users are those of "
    "the container; huser,\nhgroup and hpid are what they are outside.",
)


def run_top(call: Call) -> int:
    """Print a table."""
    words = list(call.words)
    if call.options.flag("latest"):
        with call.connect() as manager:
            words = select_names(call, manager, lambda _: True) + words
    if not words:
        raise InvalidArgument("an argument is missing", hint=f"usage: usercontainer top {TOP.arguments}")
    columns = parse_columns(words[1:])
    rows = list_processes(call.paths, resolve_name(call.paths, words[0]), columns)
    write_output(render_table([COLUMNS[column][0] for column in columns], rows))
    return 0


VERBS = {"top": (TOP, run_top)}
