"""Definitions that come over the bus: checked as if they lay on disk, written whole, loaded."""

from __future__ import annotations

import os

from usercontainerd.base.errors import AlreadyExists, InUse, InvalidDefinition, NoSuchContainer
from usercontainerd.base.names import check_container_name, is_template_name, unit_name
from usercontainerd.base.records import replace
from usercontainerd.daemon.connection import Variant
from usercontainerd.engine.containers.autostart import forget_choice
from usercontainerd.engine.containers.creation import choose_name, create_container, plan_container
from usercontainerd.engine.containers.lifecycle import is_idle
from usercontainerd.engine.containers.lookup import has_definition
from usercontainerd.engine.images.local import get_image
from usercontainerd.engine.verification import verify_file
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.trees import make_private_directories, remove_file
from usercontainerd.systemd.renewal import reload_definitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from usercontainerd.definition.diagnostic import Diagnostic
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager

MAX_TEXT = 1024 * 1024


def unwrap(value: Any) -> Any:
    """A value of the bus as plain Python: variants become what they hold."""
    if isinstance(value, Variant):
        return unwrap(value.value)
    if isinstance(value, dict):
        return {key: unwrap(each) for key, each in value.items()}
    if isinstance(value, list):
        return [unwrap(each) for each in value]
    return value


def describe_diagnostics(diagnostics: list[Diagnostic]) -> list[list[Any]]:
    """Diagnostics as ``a(sussss)``."""
    return [
        [each.path, each.line, each.key, each.severity.value, each.message, each.suggestion or ""]
        for each in diagnostics
    ]


def verify_text(context: Context, name: str, text: str) -> list[Diagnostic]:
    """Return what is wrong with ``text`` as the definition of ``name``, which is called NAME.toml there.

    Raises ``InvalidArgument``.
    """
    check_definition_name(name)
    check_size(text)
    # Read as a file of that name, since the file's name is the container's; in a directory that nobody searches.
    directory = f"{context.paths.runtime}/verify-{os.urandom(8).hex()}"
    path = f"{directory}/{name}.toml"
    make_private_directories(directory)
    try:
        write_atomic(path, text.encode(), sync=False)
        return [
            replace(each, path=f"{name}.toml") if each.path == path else each
            for each in verify_file(context, path)
        ]
    finally:
        remove_file(path)
        os.rmdir(directory)


def check_definition_name(name: str) -> None:
    """Raise ``InvalidArgument`` unless ``name`` is a container's or a template's."""
    if not is_template_name(name):
        check_container_name(name)


def check_size(text: str) -> None:
    """Raise ``InvalidDefinition`` for a text that is too long."""
    if len(text) > MAX_TEXT:
        raise InvalidDefinition(f"the definition is longer than {MAX_TEXT} characters")


def create(context: Context, manager: Manager, name: str, table: dict[str, Any]) -> str:
    """Make a container as ``usercontainer create`` does; return its name, which is made up for "".

    Raises ``InvalidDefinition``, ``NoSuchImage``, ``AlreadyExists``, ``InvalidArgument``.
    """
    chosen = choose_name(context, name or None)
    definition, diagnostics = plan_container(context, chosen, table, context.home)
    if definition is None:
        raise explain_errors(diagnostics)
    create_container(context, definition, get_image(context, definition.image))
    manager.reset_failed(unit_name(chosen))  # one that had its name may have failed
    return chosen


def update(
    context: Context, manager: Manager, name: str, table: dict[str, Any], lifted: Sequence[str]
) -> None:
    """Change a container's limits as ``usercontainer update`` does; ``lifted`` are those that are taken away.

    Raises ``InvalidDefinition``, ``InvalidArgument``, ``InUse``, ``NoSuchContainer``.
    """
    from usercontainerd.engine.containers.updating import plan_changes, update_container

    changes, diagnostics = plan_changes(context, name, table, lifted=lifted)
    if changes is None:
        raise explain_errors(diagnostics)
    update_container(context, manager, name, changes)


def explain_errors(diagnostics: Sequence[Diagnostic]) -> InvalidDefinition:
    """One error of all that is wrong with a definition."""
    return InvalidDefinition(
        "; ".join(
            f"line {each.line}: {each.key}: {each.message}" if each.line else f"{each.key}: {each.message}"
            for each in diagnostics
            if each.is_error
        )
    )


def install_definition(
    context: Context, manager: Manager, name: str, text: str, *, replace: bool
) -> list[Diagnostic]:
    """Write a definition of the user's, load it, and return the warnings.

    Raises ``InvalidDefinition`` with all errors, ``AlreadyExists``.
    """
    diagnostics = verify_text(context, name, text)
    if any(each.is_error for each in diagnostics):
        raise explain_errors(diagnostics)
    directory = context.paths.definition_directories[0]
    path = f"{directory}/{name}.toml"
    make_private_directories(directory)
    if os.path.lexists(path) and not replace:
        raise AlreadyExists("there is such a definition already", where=path, hint="use the option replace")
    write_atomic(path, text.encode(), mode=0o644)
    reload_definitions(manager)
    return diagnostics


def remove_definition(context: Context, manager: Manager, name: str) -> None:
    """Remove a definition of the user's. Raises ``NoSuchContainer``, ``InUse``."""
    check_definition_name(name)
    path = f"{context.paths.definition_directories[0]}/{name}.toml"
    if not os.path.lexists(path):
        raise NoSuchContainer("there is no such definition of the user's", where=path)
    if not is_template_name(name) and not is_idle(manager, name):
        raise InUse("the container runs", where=name)
    remove_file(path)
    if not has_definition(context.paths, name):
        forget_choice(context.paths, name)
        if not is_template_name(name):
            manager.reset_failed(unit_name(name))  # a reload forgets how it ended, but not a failure
    reload_definitions(manager)
