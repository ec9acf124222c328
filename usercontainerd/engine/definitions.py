"""Finding and reading definitions for the use cases: where they lie, what they mean, what is wrong with them."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidDefinition, NoSuchContainer
from usercontainerd.base.names import check_container_name, split_instance
from usercontainerd.base.records import dataclass
from usercontainerd.definition.diagnostic import Diagnostic
from usercontainerd.definition.model import Definition
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.search import Found, find_definition
from usercontainerd.definition.specifiers import Owner
from usercontainerd.engine.containers.lookup import definition_directories as find_directories
from usercontainerd.engine.context import Context


@dataclass(frozen=True)
class LoadedDefinition:
    """A definition that can be used. ``watched`` are the paths that would change it, existing or not."""

    definition: Definition
    found: Found
    warnings: tuple[Diagnostic, ...]
    watched: tuple[str, ...]


def definition_directories(context: Context) -> tuple[str, ...]:
    """All places, first found wins; what ``create`` made comes last."""
    return find_directories(context.paths)


def build_owner(context: Context) -> Owner:
    """The user, as specifiers and ``~`` need it."""
    return Owner(
        home=context.home, runtime_root=context.paths.runtime_root, user_name=context.user, uid=context.uid
    )


def read_definition(context: Context, name: str) -> LoadedDefinition:
    """Read the definition of ``name``.

    Raises ``NoSuchContainer`` if there is none, and ``InvalidDefinition`` with every problem, one a line.
    """
    check_container_name(name)
    directories = definition_directories(context)
    found = find_definition(directories, name)
    if found is None:
        raise explain_missing(name, directories[0])
    definition, diagnostics = load_definition(found, build_owner(context))
    if definition is None:
        raise InvalidDefinition(
            "; ".join(str(diagnostic) for diagnostic in diagnostics if diagnostic.is_error),
            hint="`usercontainer verify` shows all problems",
        )
    return LoadedDefinition(definition, found, diagnostics, plan_watched(directories, name, found))


def recall_definition(context: Context, made: Definition) -> LoadedDefinition:
    """``read_definition`` of a container that we have just made: what its file says is known (see ``toml_writer``)."""
    directories = definition_directories(context)
    found = find_definition(directories, made.name)
    if found is None or found.drop_ins or (found.path,) != made.sources:
        return read_definition(context, made.name)  # somebody has added to it, or removed it
    return LoadedDefinition(made, found, (), plan_watched(directories, made.name, found))


def plan_watched(directories: tuple[str, ...], name: str, found: Found) -> tuple[str, ...]:
    """Every path whose appearance, change or removal could give ``name`` another definition."""
    prefix, instance = split_instance(name)
    names = (name,) if instance is None else (name, f"{prefix}@")
    places = [
        f"{directory}/{each}{suffix}"
        for directory in directories
        for each in names
        for suffix in (".toml", ".toml.d")
    ]
    return tuple(dict.fromkeys((*places, found.path, *found.drop_ins)))


def explain_missing(name: str, directory: str) -> NoSuchContainer:
    """The error for a name without a definition: how to make one."""
    return NoSuchContainer(
        f'there is no definition of a container "{name}"',
        where=f"{directory}/{name}.toml",
        hint="write that file, see container-definition(5), or use `usercontainer create --name`",
    )
