"""Use cases of images: pull, list, find. Plain blocking functions, safe across processes.

What can be answered from the store alone is answered before anything heavy (``requests``) is imported.
"""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import (
    InvalidReference,
    NoSuchImage,
    PullDenied,
    RegistryError,
)
from usercontainerd.definition.model import PullPolicy
from usercontainerd.engine.access import AS_CONFIGURED, RegistryAccess
from usercontainerd.engine.endpoints import (
    SILENT,
    Conversation,
    choose_meaning,
    keep_meaning,
    try_candidates,
)
from usercontainerd.kernel.idmap import read_id_map
from usercontainerd.oci.platform import Platform, choose_platform
from usercontainerd.oci.reference import Reference, parse_reference
from usercontainerd.registry.configuration import RegistriesConfiguration
from usercontainerd.registry.configuration_files import read_registries_configuration
from usercontainerd.registry.recorded_aliases import find_recorded_aliases
from usercontainerd.store.images import ImageRecord, ImageStore
from usercontainerd.store.layout import Store
from usercontainerd.store.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.registry_source import RegistrySource

    class Progress(Protocol):
        """Called with what happens.

        A phase (see ``pulling``), the item, bytes done and in all (0: unknown).
        """

        def __call__(self, phase: str, item: str, done: int, total: int, /) -> None: ...  # noqa: D102


def ignore_progress(_phase: str, _item: str, _done: int, _total: int, /) -> None:
    """The progress of those who do not care."""


def open_images(context: Context) -> ImageStore:
    """Return the user's images; nothing is made on disk."""
    return ImageStore(Store(context.paths))


def read_registries(context: Context) -> RegistriesConfiguration:
    """Read registries.conf as it applies to the user. Raises ``InvalidFormat``."""
    return read_registries_configuration(
        os.path.dirname(context.paths.config),
        dict(context.environment),
        recorded=find_recorded_aliases(os.path.dirname(context.paths.cache)),
    )


def list_images(context: Context) -> list[ImageRecord]:
    """Return all images with their names, the one pulled last first."""
    return open_images(context).all()


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
    id_map = read_id_map(context.uid, context.gid, context.user)
    return Worker(context.programs.unpack_layer, id_map, user=context.user, uid=context.uid, gid=context.gid)


def pull_image(
    context: Context,
    text: str,
    *,
    policy: PullPolicy = PullPolicy.ALWAYS,
    access: RegistryAccess = AS_CONFIGURED,
    progress: Progress = ignore_progress,
    platform: Platform | None = None,
    talk: Conversation = SILENT,
    signature_policy: str | None = None,
) -> ImageRecord:
    """Have the image ``text`` in the store, and return it.

    ``missing`` asks no registry if the image is here, ``never`` asks none at all; ``always`` and ``newer``
    ask (and fetch only what is not here), but ``newer`` falls back on what is here if no registry answers.
    ``signature_policy`` is the file that says which images may come, None for the user's or the system's.
    Interrupting it at any moment leaves the store as it was, but for layers that were complete. Raises
    ``NoSuchImage``, ``PullDenied``, ``RegistryError``, ``DigestMismatch``, ``InvalidFormat``,
    ``StoreError``…
    """
    text = text.removeprefix("docker://")
    local = find_image(context, text)
    if local is not None and not _is_usable(context, local, platform):
        local = None
    if policy is PullPolicy.NEVER and local is None:
        raise NoSuchImage(
            f"there is no image {text!r} here, and it must not be pulled", hint="pull policy: never"
        )
    if local is not None and policy in (PullPolicy.MISSING, PullPolicy.NEVER):
        return local
    configuration = read_registries(context)
    meaning, chosen = choose_meaning(configuration, parse_reference(text).with_default_tag(), talk)
    from usercontainerd.engine.admission import read_admission

    admission = read_admission(context, signature_policy)
    # A name that is new brings layers in all likelihood: the worker starts up while requests is being imported.
    worker = start_worker(context) if local is None else None

    def attempt(source: RegistrySource, name: Reference) -> ImageRecord:
        nonlocal worker
        from usercontainerd.engine.pulling import Pull

        approve = admission.for_registry(name, lambda: source.client)
        with Pull(
            context,
            source,
            name,
            approve=approve,
            progress=progress,
            platform=platform,
            worker=worker,
        ) as pull:
            worker = None  # it goes with the pull
            return pull.run()

    try:
        record = try_candidates(context, configuration, meaning.candidates, attempt, access=access, talk=talk)
        if chosen:
            keep_meaning(context, meaning)
        return record
    except (NoSuchImage, PullDenied, RegistryError):
        if local is not None and policy is PullPolicy.NEWER:
            return local
        raise
    finally:
        if worker is not None:
            worker.close(wait=False)


def _is_usable(context: Context, record: ImageRecord, platform: Platform | None) -> bool:
    if platform is not None:
        system, architecture, variant = (*record.platform.split("/", 2), "", "")[:3]
        if choose_platform(platform, [Platform(system, architecture, variant)]) is None:
            return False
    return open_images(context).is_whole(record)


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


def current_time() -> int:
    """Seconds since the epoch."""
    return int(time.time())
