"""Pushing an image to a registry: blobs first, the manifest last, so that the registry never has half an image.

If all layers go out in the form that they came in, the manifest is the original to the byte, and with it the digest.
"""

from __future__ import annotations

from contextlib import ExitStack

from usercontainerd.base.errors import (
    InvalidArgument,
    InvalidReference,
    NoSuchImage,
    StoreError,
    UsercontainerError,
)
from usercontainerd.base.records import dataclass
from usercontainerd.engine.images.local import get_image, ignore_progress, open_images, read_registries
from usercontainerd.engine.images.names import find_meant_names
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess, open_client
from usercontainerd.engine.transfers.push_layers import LayerPusher, LayerWishes, check_layers
from usercontainerd.oci.conversion import ManifestForm, build_manifest, find_form
from usercontainerd.oci.digest import Digest, compute_digest
from usercontainerd.oci.manifest import Descriptor, Manifest, parse_manifest
from usercontainerd.oci.reference import DOCKER_HUB, Reference, parse_reference
from usercontainerd.store.compress import Compression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.upload import Uploader
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord, NameRecord

# Of containers-transports(5): what a push does not reach.
_TRANSPORTS = ("containers-storage", "dir", "docker-archive", "docker-daemon", "oci", "oci-archive", "sif")


@dataclass(frozen=True)
class PushOptions:
    """What is to be different from the image as it was pulled; None, False: nothing."""

    form: ManifestForm | None = None
    compression: Compression | None = None
    level: int | None = None
    force: bool = False


AS_IT_IS = PushOptions()


@dataclass(frozen=True)
class Pushed:
    """Where an image is now, and the digest of its manifest there."""

    reference: Reference
    digest: Digest


def push_image(
    context: Context,
    text: str,
    destination: str | None = None,
    *,
    options: PushOptions = AS_IT_IS,
    access: RegistryAccess = AS_CONFIGURED,
    progress: Progress = ignore_progress,
) -> Pushed:
    """Push the image ``text`` to ``destination``, or to where its own name says.

    Interrupted at any moment, the registry has no part of an image under a name. Raises ``NoSuchImage``,
    ``InvalidArgument``, ``PullDenied``, ``RegistryError``, ``StoreError``, ``Cancelled``…
    """
    record = get_image(context, text)
    name = _find_name(context, record, text)
    target = plan_destination(text, name, destination)
    images = open_images(context)
    original = read_manifest(images, record, *reversed(name.digests if name is not None else ()))
    with ExitStack() as stack:
        client = open_client(context, read_registries(context).locate(target), target, access)
        stack.callback(client.close)
        sender = ImageSender(context, client, target, options=options, progress=progress)
        digest = sender.send(record, original, wanted=target.wanted).digest
    progress(Phase.DONE, str(target), 1, 1)
    return Pushed(target, digest)


class ImageSender:
    """Sends images of this store to one repository, in which ``client`` and ``target`` agree."""

    def __init__(
        self,
        context: Context,
        client: RegistryClient,
        target: Reference,
        *,
        options: PushOptions = AS_IT_IS,
        progress: Progress = ignore_progress,
    ) -> None:
        self._context = context
        self._images = open_images(context)
        self._client = client
        self._target = target
        self._options = options
        self._progress = progress
        self.uploader = _build_uploader(client)

    def send(
        self, record: ImageRecord, original: tuple[Manifest, bytes], *, wanted: str | None = None
    ) -> Descriptor:
        """Send an image by its manifest; put that under the tag or digest ``wanted``, or its own digest.

        Return what the manifest is there.
        """
        manifest, data = original
        images = self._images
        check_layers(images, record.layers)
        form, wishes = plan_wishes(find_form(manifest.media_type), self._options)
        sources = find_sources(images, self._target, record)
        with LayerPusher(
            self._context, images, self.uploader, wishes, sources=sources, progress=self._progress
        ) as pusher:
            there = pusher.push_all(
                dict(zip(record.layers, manifest.layers, strict=True)), abort=self._client.close
            )
            pusher.push_small(manifest.config, images.blobs.read(record.id))
        layers = [there[diff_id] for diff_id in record.layers]
        media_type = manifest.media_type
        if form is not find_form(media_type) or layers != list(manifest.layers):
            data, media_type = build_manifest(manifest, layers, form)
        digest = self.uploader.put_manifest(wanted or compute_digest(data), data, media_type)
        return Descriptor(media_type, digest, len(data))


def list_tagged_names(context: Context, text: str) -> list[str]:
    """Return all names here that are of the repository ``text``, for a push of all its tags.

    Raises ``NoSuchImage`` if there is none.
    """
    reference = parse_reference(text)
    if reference.tag is not None or reference.digest is not None:
        raise InvalidArgument("with all tags, the name is one without a tag")
    candidates = read_registries(context).local_candidates(reference)
    names = [name.reference for name in open_images(context).all_names()]
    for candidate in candidates:
        found = [str(name) for name in names if name.tag is not None and name.name == candidate.name]
        if found:
            return found
    raise NoSuchImage(f"there is no image {text!r} here")


def plan_destination(text: str, name: NameRecord | None, destination: str | None) -> Reference:
    """Return the full name to push to, by default ``name``, which the user's ``text`` means.

    Raises ``InvalidArgument``, ``InvalidReference``.
    """
    if destination is None:
        if name is None:
            raise InvalidArgument(
                f"{text!r} does not say where to push to", hint="give a DESTINATION, such as quay.io/me/app"
            )
        return name.reference.with_default_tag()
    scheme, colon, _ = destination.partition(":")
    if colon and scheme in _TRANSPORTS:
        raise InvalidArgument(
            f"a push goes to a registry, not to {scheme}:", hint="`usercontainer save` writes archives"
        )
    plain = destination.removeprefix("docker://")
    if "://" in plain:
        raise InvalidReference(f"{destination!r} is not a name in a registry")
    reference = parse_reference(plain)
    if reference.is_short:
        # As podman and docker have it: nobody wants a push to go to whichever registry is searched first.
        reference = reference.with_registry(DOCKER_HUB)
    if reference.tag is not None and reference.digest is not None:
        raise InvalidArgument("the destination has a tag and a digest", where=destination)
    return reference.with_default_tag()


def plan_wishes(original: ManifestForm, options: PushOptions) -> tuple[ManifestForm, LayerWishes]:
    """Return the form that the manifest gets, and what that means for layers. Raises ``InvalidArgument``."""
    form = options.form or original
    if options.compression is Compression.ZSTD and form is ManifestForm.DOCKER:
        if options.form is ManifestForm.DOCKER:
            raise InvalidArgument(
                "Docker's form of a manifest has no layers compressed with zstd", hint="--format oci"
            )
        form = ManifestForm.OCI
    compression = options.compression
    if compression is None and (options.force or options.level is not None):
        compression = Compression.GZIP
    force = options.force or options.level is not None
    return form, LayerWishes(form, compression, options.level, force=force)


def _build_uploader(client: RegistryClient) -> Uploader:
    # Brings requests: only who talks to a registry pays for it.
    from usercontainerd.registry.upload import Uploader

    return Uploader(client.session)


def _find_name(context: Context, record: ImageRecord, text: str) -> NameRecord | None:
    """The name that was meant; None for an ID."""
    meant = find_meant_names(context, text, [name.name for name in record.names])
    return next((name for name in record.names if name.name in meant), None)


def read_manifest(images: ImageStore, record: ImageRecord, *likely: Digest) -> tuple[Manifest, bytes]:
    """Return a manifest of the image: the first of ``likely`` that is one and is here, else that of its first pull.

    An image may have several. Raises ``StoreError`` if there is none.
    """
    for digest in (*likely, record.manifest):
        if not images.blobs.has(digest):
            continue
        data = images.blobs.read(digest)
        manifest = parse_manifest(data, None, where=images.store.blob(digest))
        if (
            isinstance(manifest, Manifest)
            and manifest.config.digest == record.id
            and len(manifest.layers) == len(record.layers)
        ):
            return manifest, data
    raise StoreError(
        "the image has no manifest here that fits it",
        where=f"image {record.short_id}",
        hint="pull the image again",
    )


def find_sources(images: ImageStore, target: Reference, record: ImageRecord) -> dict[Digest, Sequence[str]]:
    """Return the repositories of the target's registry that had a blob when an image was pulled from there."""
    sources: dict[Digest, list[str]] = {}
    layers = set(record.layers)
    for image in images.all():
        if layers.isdisjoint(image.layers):
            continue
        for name in image.names:
            reference = name.reference
            if reference.registry != target.registry or reference.repository == target.repository:
                continue
            for blob in _list_blobs(images, name.digests):
                repositories = sources.setdefault(blob, [])
                if reference.repository not in repositories:
                    repositories.append(reference.repository)
    return dict(sources)


def _list_blobs(images: ImageStore, digests: Sequence[Digest]) -> list[Digest]:
    blobs = []
    for digest in digests:
        try:
            manifest = parse_manifest(images.blobs.read(digest), None)
        except UsercontainerError:
            continue  # not here any more, or of no use: then nothing is mounted
        if isinstance(manifest, Manifest):
            blobs += [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
    return blobs
