"""Whether the name of a container's image means another image by now: what a restart, or a new container, would get.

Only what is in the store counts, no registry is asked: an image is newer here once somebody has pulled or tagged it.
"""

from __future__ import annotations

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.engine.images.local import find_image
from usercontainerd.oci.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.engine.context import Context
    from usercontainerd.runtime.summary import Summary
    from usercontainerd.store.records import ImageRecord


class NewerImages:
    """What names mean at one moment: made anew when images have changed. ``known`` are images that were just read."""

    def __init__(self, context: Context, known: Iterable[ImageRecord] = ()) -> None:
        self._context = context
        self._meanings = {name.name: str(image.id) for image in known for name in image.names}

    def has_newer(self, summary: Summary) -> bool:
        """Tell whether there is another image now under the name that the container follows; never raises."""
        if not summary.follows or not summary.image_id:
            return False
        return self._find(summary.follows) not in ("", summary.image_id)

    def _find(self, name: str) -> str:
        try:
            reference = parse_reference(name).with_default_tag()
            key = name if reference.is_short else str(reference)
            if key not in self._meanings:
                found = find_image(self._context, name)
                self._meanings[key] = "" if found is None else str(found.id)
            return self._meanings[key]
        except UsercontainerError:
            return ""
