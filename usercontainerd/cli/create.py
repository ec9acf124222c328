"""``usercontainer create``, and the part of ``run`` that is the same."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, SystemdError
from usercontainerd.base.names import unit_name
from usercontainerd.cli.container_options import CONTAINER_OPTIONS, REFUSED
from usercontainerd.cli.container_table import build_table, explain_diagnostics, render_problem
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.cli.pull import (
    CHOICE_OPTIONS,
    POLICIES,
    pull_with_progress,
    read_platform,
    read_policy,
    read_retry,
)
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, read_access
from usercontainerd.engine.containers.creation import choose_name, create_container, plan_container
from usercontainerd.engine.containers.lifecycle import remove_container
from usercontainerd.engine.containers.lookup import container_id, is_known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.definition.model import Definition
    from usercontainerd.engine.context import Context

CREATION_OPTIONS = (
    *ACCESS_OPTIONS,
    Option("--cidfile FILE", "write the container's ID into a new file"),
    Option("--name NAME", "the container's name; one is made up without it"),
    *CHOICE_OPTIONS,
    Option("--pull POLICY", "when to pull the image: missing (default), always, newer or never", POLICIES),
    Option("-q, --quiet", "show no progress of a pull"),
    Option("--replace", "remove the container that has the name, even if it runs"),
    *CONTAINER_OPTIONS,
)
CREATE = Verb(
    "create",
    "IMAGE [COMMAND [ARG...]]",
    "Make a container from an image, without starting it",
    CREATION_OPTIONS,
    fewest=1,
    leading=True,
    details="Prints the container's ID. Its unit is container@NAME.service; what it writes to its root file system\n"
    "stays until `usercontainer rm`.",
    refused=REFUSED,
)


def run_create(call: Call) -> int:
    """Make the container and print its ID."""
    definition = make_container(call, call.context())
    forget_failure(call, unit_name(definition.name))
    write_output(f"{container_id(definition.name)}\n")
    return 0


def forget_failure(call: Call, unit: str) -> None:
    """A container that was never started has not failed, even if one that had its name has."""
    try:
        with call.connect() as manager:
            manager.reset_failed(unit)
    except SystemdError:
        pass  # nobody shows it either


def make_container(call: Call, context: Context) -> Definition:
    """Check what was asked for, have the image, and write definition and unit."""
    options = call.options
    cidfile = options.value("cidfile")
    if cidfile is not None and os.path.lexists(cidfile):
        raise InvalidArgument("the file exists already", where=cidfile, hint="is another container using it?")
    retry = read_retry(options)
    if options.flag("replace"):
        remove_former(call, context)
    name = choose_name(context, options.value("name"))
    table = build_table(call)
    definition, problems = plan_container(context, name, table, os.getcwd())
    if definition is None:
        raise explain_diagnostics(problems)
    for problem in problems:
        write_error(f"Warning: {render_problem(problem)}\n")
    record = pull_with_progress(
        context,
        definition.image,
        read_policy(options.value("pull"), "missing"),
        read_platform(options),
        quiet=options.flag("quiet"),
        access=read_access(call),
        retry=retry,
    )
    whole = create_container(context, definition, record, publish_all=options.flag("publish-all"))
    if cidfile is not None:
        write_new_file(cidfile, container_id(name))
    return whole


def remove_former(call: Call, context: Context) -> None:
    """``--replace``: remove the container that has the name now."""
    name = call.options.value("name")
    if name is None:
        raise InvalidArgument("--replace needs --name: a name that is made up is nobody's")
    if is_known(context.paths, name):
        with call.connect() as manager:
            remove_container(context, manager, name, force=True)


def write_new_file(path: str, text: str) -> None:
    """Write a file that must not exist yet."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise InvalidArgument(f"cannot write the ID: {error.strerror}", where=path) from error


VERBS = {"create": (CREATE, run_create)}
