"""How an image came to be: one step for each entry of its history, the newest first, as ``podman history`` has it."""

from __future__ import annotations

from usercontainerd.engine.images.family import ImageFamily
from usercontainerd.engine.images.local import get_image, open_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context
    from usercontainerd.oci.image import History
    from usercontainerd.store.records import ImageRecord

MISSING = "<missing>"  # the ID of a step whose image is not here


class HistoryStep:
    """One step; ``size`` in bytes of file content, ``image`` the image that ended with it, if it is here."""

    __slots__ = ("entry", "image", "size")

    def __init__(self, entry: History, size: int, image: ImageRecord | None) -> None:
        self.entry = entry
        self.size = size
        self.image = image

    @property
    def id(self) -> str:
        """The image's ID without its algorithm, or ``<missing>``."""
        return MISSING if self.image is None else self.image.id.hex


def read_history(context: Context, text: str) -> list[HistoryStep]:
    """Return the steps of the image ``text``. Raises ``NoSuchImage``, ``StoreError``.

    An image that tells less than it has layers gets one step for each further layer.
    """
    images = open_images(context)
    record = get_image(context, text)
    configuration = images.configuration(record)
    layers = list(record.layers)
    entries = list(configuration.history)
    missing = len(layers) - sum(not entry.empty_layer for entry in entries)
    if missing > 0:
        from usercontainerd.oci.image import History

        entries += [History(created=configuration.created)] * missing
    family = ImageFamily(images, images.all())
    image: ImageRecord | None = record
    steps = []
    for entry in reversed(entries):
        size = 0
        if not entry.empty_layer and layers:
            layer = images.layers.read(layers.pop())
            size = 0 if layer is None else layer.size
        steps.append(HistoryStep(entry, size, image))
        image = None if image is None else family.find_parent(image)
    return steps
