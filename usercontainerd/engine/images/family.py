"""Which image was made from which: told by layers and history, as podman tells it, since no image says it.

An image's parent has the first of its layers and all but the last step of its history. One that has neither a name nor
children is dangling; without a name but with children it is intermediate: a step of a build.
"""

from __future__ import annotations

from usercontainerd.base.errors import UsercontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.oci.image import ImageConfiguration
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord


class ImageFamily:
    """Answers about ``records``, which are all images; configurations are read only where layers leave it open."""

    def __init__(self, images: ImageStore, records: Sequence[ImageRecord]) -> None:
        self.records = records
        self._images = images
        self._configurations: dict[str, ImageConfiguration | None] = {}

    def find_parent(self, record: ImageRecord) -> ImageRecord | None:
        """The image that this one was made from; None if it is not here. One with a name before others."""
        parents = [each for each in self.records if self._is_parent(each, record)]
        return min(parents, key=lambda each: not each.names, default=None)

    def has_children(self, record: ImageRecord) -> bool:
        """Tell whether another image was made from this one."""
        return any(self._is_parent(record, each) for each in self.records)

    def find_children(self, record: ImageRecord) -> list[ImageRecord]:
        """The images that were made from this one."""
        return [each for each in self.records if self._is_parent(record, each)]

    def is_dangling(self, record: ImageRecord) -> bool:
        """Tell whether it has neither a name nor children."""
        return not record.names and not self.has_children(record)

    def is_intermediate(self, record: ImageRecord) -> bool:
        """Tell whether it has no name, but children."""
        return not record.names and self.has_children(record)

    def _is_parent(self, parent: ImageRecord, child: ImageRecord) -> bool:
        count = len(parent.layers)
        if parent.id == child.id or child.layers[:count] != parent.layers or len(child.layers) > count + 1:
            return False
        older, newer = self._configuration(parent), self._configuration(child)
        if older is None or newer is None:
            return False
        steps = len(older.history)
        return len(newer.history) == steps + 1 and newer.history[:steps] == older.history

    def _configuration(self, record: ImageRecord) -> ImageConfiguration | None:
        if record.id not in self._configurations:
            try:
                self._configurations[record.id] = self._images.configuration(record)
            except UsercontainerError:
                self._configurations[record.id] = None  # a damaged image has no relatives
        return self._configurations[record.id]
