"""Which containers use which images: the one place that knows, for removing, pruning, listing and counting.

A container is whatever ``ps -a`` shows: made by ``create`` or defined by a file, running or not. It uses the image that
its definition means now and, while it runs, the one that it was started from.
"""

from __future__ import annotations

from usercontainerd.engine.containers.listing import (
    list_containers,
    list_units,
    read_cached_summary,
    read_container,
)
from usercontainerd.engine.containers.lookup import list_known
from usercontainerd.runtime.summary import read_summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usercontainerd.engine.containers.listing import Container
    from usercontainerd.engine.context import Context
    from usercontainerd.oci.digest import Digest
    from usercontainerd.runtime.summary import Summary
    from usercontainerd.systemd.manager import Manager


class ImageUsers:
    """The containers, and by image those that use it."""

    def __init__(self, uses: Iterable[tuple[Container, Iterable[str]]] = ()) -> None:
        self.containers: list[Container] = []
        self._by_image: dict[str, list[Container]] = {}
        for container, images in uses:
            self.containers.append(container)
            for image in dict.fromkeys(images):
                if image:
                    self._by_image.setdefault(image, []).append(container)

    def of(self, image_id: Digest) -> Sequence[Container]:
        """The containers that use an image."""
        return self._by_image.get(image_id, ())


def find_users(context: Context, manager: Manager | None) -> ImageUsers:
    """Return all containers and the images that they use.

    Without ``manager`` (no systemd answers) nobody can say what runs: then what was once prepared counts as used.
    """

    def summarise(name: str) -> Summary:
        from usercontainerd.engine.containers.summaries import summarise_definition

        return summarise_definition(context, name)

    paths = context.paths
    if manager is not None:
        found = list_containers(paths, list_units(manager), summarise, everything=True)
    else:
        found = [read_container(paths, name, None, summarise) for name in list_known(paths)]
    uses = []
    for container in found:
        images = [container.summary.image_id]
        if container.is_alive:
            defined = read_cached_summary(paths, container.name) or summarise(container.name)
            images.append(defined.image_id)
        elif manager is None:
            prepared = read_summary(f"{paths.bundle(container.name)}/summary")
            images.append(prepared.image_id if prepared is not None else "")
        uses.append((container, images))
    return ImageUsers(uses)
