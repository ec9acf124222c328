"""The layers of an image as a tree, and the images that share them, as ``podman image tree`` has it.

Layers are called by their diffIDs, as ``inspect`` and the store call them.
"""

from __future__ import annotations

from usercontainerd.engine.images.local import get_image, open_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.oci.digest import Digest
    from usercontainerd.store.records import ImageRecord


class LayerNode:
    """A layer; ``top_of`` are the names (or IDs) of the images that end with it, ``above`` the layers upon it."""

    __slots__ = ("above", "diff_id", "size", "top_of")

    def __init__(self, diff_id: Digest, size: int, top_of: Sequence[str]) -> None:
        self.diff_id = diff_id
        self.size = size
        self.top_of = tuple(top_of)
        self.above: list[LayerNode] = []


def build_tree(
    context: Context, text: str, *, dependents: bool = False
) -> tuple[ImageRecord, list[LayerNode]]:
    """Return the image ``text`` and its layers, lowest first and side by side.

    With ``dependents`` only its top layer, and above it those of the images that are built upon it. Raises
    ``NoSuchImage``.
    """
    images = open_images(context)
    record = get_image(context, text)
    records = images.all()
    sizes: dict[Digest, int] = {}

    def make_node(layers: tuple[Digest, ...]) -> LayerNode:
        diff_id = layers[-1]
        if diff_id not in sizes:
            layer = images.layers.read(diff_id)
            sizes[diff_id] = 0 if layer is None else layer.size
        return LayerNode(diff_id, sizes[diff_id], list_tops(records, layers))

    layers = record.layers
    if not dependents:
        return record, [make_node(layers[: count + 1]) for count in range(len(layers))]
    if not layers:
        return record, []
    nodes = {layers: make_node(layers)}
    for other in records:
        if other.layers[: len(layers)] != layers:
            continue
        for count in range(len(layers), len(other.layers)):
            path = other.layers[: count + 1]
            if path not in nodes:
                nodes[path] = make_node(path)
                nodes[path[:-1]].above.append(nodes[path])
    return record, [nodes[layers]]


def list_tops(records: Sequence[ImageRecord], layers: tuple[Digest, ...]) -> list[str]:
    """The names of the images that have exactly these layers. Pure."""
    return [name.name for record in records if record.layers == layers for name in record.names]
