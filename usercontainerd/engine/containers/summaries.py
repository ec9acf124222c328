"""Summaries of definitions that do not run: made by reading the definition and its image, then cached."""

from __future__ import annotations

import os

from usercontainerd.base.errors import StoreError, UsercontainerError
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.search import find_definition
from usercontainerd.engine.containers.health_plans import find_health_plan
from usercontainerd.engine.containers.listing import summary_cache
from usercontainerd.engine.containers.lookup import is_made
from usercontainerd.engine.definitions import build_owner, definition_directories, plan_watched
from usercontainerd.engine.images.local import find_image, open_images
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.oci.image import ImageConfiguration
from usercontainerd.oci.platform import Platform
from usercontainerd.runtime.plan import stamp_path
from usercontainerd.runtime.specification import plan_arguments
from usercontainerd.runtime.summary import Summary, build_summary, render_summary, shorten_image
from usercontainerd.store.records import name_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.model import Definition
    from usercontainerd.engine.context import Context

NO_IMAGE = ImageConfiguration(Platform("linux", "", ""), ())


def summarise_definition(context: Context, name: str) -> Summary:
    """Return the summary of container ``name`` and keep it for the next list. Never raises for a bad definition."""
    directories = definition_directories(context)
    found = find_definition(directories, name)
    if found is None:
        return Summary(problem="there is no definition")
    watched = [*plan_watched(directories, name, found)]
    definition, diagnostics = load_definition(found, build_owner(context))
    if definition is None:
        problem = next((str(each) for each in diagnostics if each.is_error), "it cannot be used")
        summary = Summary(definition=found.path, problem=problem, stamps=_stamp(watched))
    else:
        image_id, configuration, files = _look_up_image(context, definition)
        watched += files
        arguments = plan_arguments(definition, configuration)
        follows = shorten_image(definition.image) if is_made(context.paths, found.path) else ""
        checked = find_health_plan(definition, configuration) is not None
        summary = build_summary(
            definition,
            arguments,
            image_id,
            configuration.labels,
            _stamp(watched),
            follows=follows,
            checked=checked,
        )
    _keep(context, name, summary)
    return summary


def _look_up_image(context: Context, definition: Definition) -> tuple[str, ImageConfiguration, list[str]]:
    """The image's ID and configuration, empty if it is not here, and the files whose change would change that."""
    images = open_images(context)
    try:
        record = find_image(context, definition.image)
        if record is None:
            return "", NO_IMAGE, [images.store.names, images.store.images]
        files = [
            f"{images.store.images}/{record.id.hex}.json",
            *(f"{images.store.names}/{name_file(each.name)}" for each in record.names),
        ]
        return record.id, images.configuration(record), files
    except UsercontainerError:
        return "", NO_IMAGE, [images.store.names, images.store.images]


def _stamp(paths: list[str]) -> list[tuple[str, str]]:
    return [(path, stamp_path(path)) for path in dict.fromkeys(paths)]


def _keep(context: Context, name: str, summary: Summary) -> None:
    path = summary_cache(context.paths, name)
    try:
        make_private_directories(os.path.dirname(path))
        write_atomic(path, os.fsencode(render_summary(summary)), sync=False)
    except (OSError, StoreError):
        pass  # a list may be slow, but not fail, for want of a cache
