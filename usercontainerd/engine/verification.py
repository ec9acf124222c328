"""What is wrong with definitions, all of it, without starting anything."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidDefinition, UsercontainerError
from usercontainerd.definition.diagnostic import Diagnostic, Severity
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.search import describe_file, find_definitions
from usercontainerd.engine.definitions import build_owner, definition_directories
from usercontainerd.systemd.unit import build_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.search import Found
    from usercontainerd.engine.context import Context


def verify_file(context: Context, path: str) -> list[Diagnostic]:
    """Return all problems of the definition in the file ``path``, with the drop-ins beside it."""
    problems: list[Diagnostic] = []
    found = describe_file(os.path.abspath(path), problems)
    if found is not None:
        problems += _verify(context, found)
    return problems


def verify_all(context: Context) -> tuple[int, list[Diagnostic]]:
    """Return how many definitions there are, and all problems of all of them."""
    problems: list[Diagnostic] = []
    found = find_definitions(definition_directories(context), problems)
    for each in found:
        problems += _verify(context, each)
    return len(found), problems


def _verify(context: Context, found: Found) -> list[Diagnostic]:
    definition, diagnostics = load_definition(found, build_owner(context))
    problems = list(diagnostics)
    if definition is not None:
        try:
            # Directives that are passed through are checked when the unit is made.
            build_unit(definition, context.programs)
        except InvalidDefinition as error:
            problems.append(_place(found, error))
    return problems


def _place(found: Found, error: UsercontainerError) -> Diagnostic:
    return Diagnostic(found.path, 0, error.where or "", Severity.ERROR, error.what, error.hint)
