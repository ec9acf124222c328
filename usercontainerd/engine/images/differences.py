"""What an image's top layer changes, or how an image differs from another: ``image diff``."""

from __future__ import annotations

from usercontainerd.engine.images.local import get_image, open_images, start_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.engine.context import Context
    from usercontainerd.store.outputs import Change


def list_image_changes(context: Context, text: str, other: str | None = None) -> Iterator[Change]:
    """Yield what the top layer of the image ``text`` changes of those below it, parents first.

    With ``other`` how all of the image differs from that one instead. Raises ``NoSuchImage``, ``StoreError``.
    """
    layers = _find_layers(context, text)
    others = None if other is None else _find_layers(context, other)
    if not layers and not others:
        return
    with start_worker(context) as worker:
        order = (
            worker.start_changes(layers[0], layers[1:])
            if others is None
            else worker.start_differences(layers, others)
        )
        with order as stream:
            yield from stream


def _find_layers(context: Context, text: str) -> tuple[str, ...]:
    return open_images(context).layer_directories(get_image(context, text))[::-1]
