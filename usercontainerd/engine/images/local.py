"""The images that are here: finding and listing them, and the process that works on their files.

Light, since all verbs of images start with this: what reads registries.conf or starts a process is imported when it
is needed.
"""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import InvalidReference, NoSuchImage
from usercontainerd.oci.digest import is_digest
from usercontainerd.oci.reference import parse_reference
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layout import Store
from usercontainerd.store.records import ImageRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from usercontainerd.engine.context import Context
    from usercontainerd.registry.configuration import RegistriesConfiguration
    from usercontainerd.store.worker import Worker

    class Progress(Protocol):
        """Called with what happens.

        A phase (see ``phases``), the item, bytes done and in all (0: unknown).
        """

        def __call__(self, phase: str, item: str, done: int, total: int, /) -> None: ...  # noqa: D102


def ignore_progress(_phase: str, _item: str, _done: int, _total: int, /) -> None:
    """The progress of those who do not care."""


def open_images(context: Context) -> ImageStore:
    """Return the user's images; nothing is made on disk."""
    return ImageStore(Store(context.paths))


def read_registries(context: Context) -> RegistriesConfiguration:
    """Read registries.conf as it applies to the user. Raises ``InvalidFormat``."""
    from usercontainerd.registry.configuration_files import read_registries_configuration
    from usercontainerd.registry.recorded_aliases import find_recorded_aliases

    return read_registries_configuration(
        os.path.dirname(context.paths.config),
        dict(context.environment),
        recorded=find_recorded_aliases(os.path.dirname(context.paths.cache)),
    )


def list_images(context: Context) -> list[ImageRecord]:
    """Return all images with their names, the one pulled last first."""
    return open_images(context).all()


def is_stored(context: Context, digits: str) -> bool:
    """Tell whether there is a record of the image whose ID has these digits."""
    return is_digest(f"sha256:{digits}") and os.path.lexists(f"{Store(context.paths).images}/{digits}.json")


def find_image(context: Context, text: str) -> ImageRecord | None:
    """Find an image in the store by name or ID prefix, as ``pull`` would understand the name.

    None if not there.
    """
    images = open_images(context)
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return images.find(text, ())  # an ID, or raises again
    if not reference.is_short:
        return images.find(text, ())
    # A name comes before an ID that looks like it.
    for candidate in read_registries(context).local_candidates(reference):
        found = images.find(str(candidate), ())
        if found is not None:
            return found
    return images.find(text, ())


def get_image(context: Context, text: str) -> ImageRecord:
    """``find_image``, but raise ``NoSuchImage``."""
    found = find_image(context, text)
    if found is None:
        raise NoSuchImage(f"there is no image {text!r} here", hint=f"usercontainer pull {text}")
    return found


def start_worker(context: Context) -> Worker:
    """Start the process that unpacks and deletes inside the user namespace."""
    from usercontainerd.kernel.idmap import read_id_map
    from usercontainerd.store.worker import Worker

    id_map = read_id_map(context.uid, context.gid, context.user)
    return Worker(context.programs.unpack_layer, id_map, user=context.user, uid=context.uid, gid=context.gid)


def empty_trash(context: Context) -> None:
    """Delete what is in the trash; what cannot be deleted stays for the next time."""
    store = Store(context.paths)
    try:
        names = os.listdir(store.trash)
    except FileNotFoundError:
        return
    if names:
        with start_worker(context) as worker:
            worker.remove(store.trash, names)


def has_leftovers(context: Context) -> bool:
    """Tell whether there may be something that killed processes have left half-made, or work that is under way."""
    store = Store(context.paths)
    for directory in (store.staging, store.trash):
        try:
            if os.listdir(directory):
                return True
        except OSError:
            continue
    return False


def sweep_leftovers(context: Context) -> None:
    """Delete what killed processes have left half-made; who is at work is not disturbed. Raises ``StoreError``."""
    from usercontainerd.store.stage import sweep_stages

    sweep_stages(open_images(context).store)
    empty_trash(context)


def current_time() -> int:
    """Seconds since the epoch."""
    return int(time.time())
