"""From definitions to units: the slow half of the generator, needed when a definition has changed.

A definition with errors becomes a unit that fails to start and says why; nothing that is wrong with one is
anything to the others.
"""

from __future__ import annotations

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.names import split_instance, unit_name
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.search import find_definition, find_definitions
from usercontainerd.engine.definitions import build_owner, definition_directories
from usercontainerd.generator.entry import Entry
from usercontainerd.generator.inputs import stamp_files
from usercontainerd.systemd.unit import build_failed_unit, build_health_timer, build_unit, plan_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from usercontainerd.definition.diagnostic import Diagnostic
    from usercontainerd.definition.model import Definition
    from usercontainerd.definition.search import Found
    from usercontainerd.engine.context import Context


def convert_all(context: Context, instances: Iterable[str], known: Mapping[str, Entry]) -> list[Entry]:
    """Return an entry for each definition and each of the ``instances`` that a template serves.

    ``known`` are entries of the last run by name: those whose files have not changed are used again.
    """
    directories = definition_directories(context)
    problems: list[Diagnostic] = []
    entries: dict[str, Entry] = {}
    wanted = list(instances)
    for found in find_definitions(directories, problems):
        if found.is_template:
            entry, default = convert_template(context, found)
            entries[found.name] = entry
            wanted += default
        else:
            entries[found.name] = convert(context, found, known)
    for name in wanted:
        if name not in entries:
            served = find_definition(directories, name, problems)
            if served is not None:
                entries[name] = convert(context, served, known)
    if problems:
        entries[""] = Entry("", "", "", (), tuple(dict.fromkeys(map(str, problems))))
    return list(entries.values())


def convert(context: Context, found: Found, known: Mapping[str, Entry]) -> Entry:
    """Return the entry of one container."""
    # Taken before the files are read: one that changes in between is read again next time.
    stamps = stamp_files((found.path, *found.drop_ins))
    key = f"{found.template or ''}\n{stamps}" if stamps else ""
    old = known.get(found.name)
    if old is not None and key and old.key == key:
        return old
    try:
        definition, diagnostics = load_definition(found, build_owner(context))
        log = tuple(map(str, diagnostics))
        if definition is not None:
            text = build_unit(definition, context.programs)
            return Entry(
                found.name, key, text, plan_links(definition), log, timer=build_health_timer(definition)
            )
        errors = [str(one) for one in diagnostics if one.is_error]
    except UsercontainerError as error:
        log = (f"{found.path}: error: {error}",)
        errors = list(log)
    except Exception as error:  # a mistake of ours must not take the other containers with it
        log = (f"{found.path}: internal error: {error!r}",)
        errors, key = list(log), ""
    return Entry(
        found.name, key, build_failed_unit(found.name, errors, found.path, context.programs), (), log
    )


def convert_template(context: Context, found: Found) -> tuple[Entry, list[str]]:
    """Return what there is to say about a template, and its default instance (``DefaultInstance``)."""
    try:
        definition, diagnostics = load_definition(found, build_owner(context))
    except Exception as error:
        return Entry(found.name, "", "", (), (f"{found.path}: internal error: {error!r}",)), []
    entry = Entry(found.name, "", "", (), tuple(map(str, diagnostics)))
    return entry, [] if definition is None else list(_default_instances(definition))


def _default_instances(template: Definition) -> Iterator[str]:
    prefix, _ = split_instance(template.name)
    for key, values in template.install:
        if key == "DefaultInstance":
            for value in values[-1:]:
                name = f"{prefix}@{value}"
                try:
                    unit_name(name)
                except UsercontainerError:
                    continue
                yield name
