"""Having an image: pulled if the policy says so. A plain blocking function, safe across processes.

What can be answered from the store alone is answered before anything heavy (``requests``) is imported.
"""

from __future__ import annotations

from usercontainerd.base.errors import NoSuchImage, PullDenied, RegistryError
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.engine.images.local import (
    find_image,
    ignore_progress,
    open_images,
    read_registries,
    start_worker,
)
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess
from usercontainerd.engine.registries.endpoints import (
    SILENT,
    Conversation,
    choose_meaning,
    keep_meaning,
    try_candidates,
)
from usercontainerd.oci.platform import Platform, choose_platform
from usercontainerd.oci.reference import Reference, parse_reference
from usercontainerd.store.records import ImageRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.engine.registries.source import RegistrySource


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
    from usercontainerd.engine.registries.admission import read_admission

    admission = read_admission(context, signature_policy)
    # A name that is new brings layers in all likelihood: the worker starts up while requests is being imported.
    worker = start_worker(context) if local is None else None

    def attempt(source: RegistrySource, name: Reference) -> ImageRecord:
        nonlocal worker
        from usercontainerd.engine.transfers.pulling import Pull

        if name.digest is not None:
            name = name.with_digest(name.digest)  # as podman: a tag beside it means nothing
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
    except (NoSuchImage, PullDenied, RegistryError) as error:
        if local is not None and policy is PullPolicy.NEWER:
            talk.notice(f"The image that is here is used: {error}")
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
