"""From a reference to one image: through an index if need be, to the manifest and the configuration of a platform.

Nothing is written here. Everything was checked by digest, counted and measured when this is done, so that what
follows knows what it is in for.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat, NoSuchImage
from usercontainerd.base.records import dataclass
from usercontainerd.oci.manifest import (
    Descriptor,
    FetchedManifest,
    Index,
    Manifest,
    check_configuration_type,
    check_layer_type,
    parse_manifest,
)
from usercontainerd.oci.platform import Platform, choose_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.transfers.sources import ImageSource
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.image import ImageConfiguration
    from usercontainerd.oci.reference import Reference


@dataclass(frozen=True)
class ResolvedImage:
    """What a reference leads to.

    ``documents`` are the index (if there is one) and the manifest, in this order, exactly as the source has them.
    """

    reference: Reference
    documents: tuple[FetchedManifest, ...]
    manifest: Manifest

    @property
    def digests(self) -> list[Digest]:
        """The digests by which the source knows the image: of the index, of the manifest."""
        return [document.digest for document in self.documents]


def resolve_image(source: ImageSource, reference: Reference, platform: Platform) -> ResolvedImage:
    """Fetch what the reference leads to, down to the manifest for ``platform``.

    An image without an index is taken as it is (see ``fetch_configuration``). Raises ``NoSuchImage`` if an index
    has nothing for the platform, ``InvalidFormat``, ``DigestMismatch`` and what the source raises.
    """
    fetched = source.fetch_manifest(reference.wanted)
    document = parse_manifest(fetched.data, fetched.media_type, where=fetched.where)
    documents = [fetched]
    if isinstance(document, Index):
        chosen = _choose_manifest(document, platform, reference)
        fetched = source.fetch_manifest(chosen.digest)
        if len(fetched.data) != chosen.size:
            raise InvalidFormat(
                f"the manifest {chosen.digest} has {len(fetched.data)} bytes, its index says {chosen.size}",
                where=fetched.where,
            )
        document = parse_manifest(fetched.data, chosen.media_type, where=fetched.where)
        if isinstance(document, Index):
            raise InvalidFormat("an index leads to another index", where=fetched.where)
        documents.append(fetched)
    check_configuration_type(document, where=fetched.where)
    for layer in document.layers:
        check_layer_type(layer, where=fetched.where)
    return ResolvedImage(reference, tuple(documents), document)


def _choose_manifest(index: Index, platform: Platform, reference: Reference) -> Descriptor:
    images = [m for m in index.manifests if dict(m.annotations).get("vnd.docker.reference.type") is None]
    number = choose_platform(platform, [m.platform for m in images])
    if number is None and len(images) == 1 and images[0].platform is None:
        number = 0
    if number is None:
        offered = ", ".join(sorted({str(m.platform) for m in images if m.platform is not None}))
        raise NoSuchImage(
            f"there is no image for {platform}",
            where=str(reference),
            hint=f"there are {offered or 'none'}",
        )
    return images[number]


def fetch_configuration(
    source: ImageSource, image: ResolvedImage, *, platform: Platform | None
) -> tuple[bytes, ImageConfiguration]:
    """Fetch an image's configuration: its bytes and what they mean.

    With ``platform``, one that was asked for by name, an image for another raises ``NoSuchImage``. Raises
    ``InvalidFormat`` if it does not fit the manifest.
    """
    # Not at the top: its classes take 5 ms to make, and an image that is here needs none of them.
    from usercontainerd.oci.image import MAX_CONFIGURATION, parse_image_configuration

    where = str(image.reference)
    data = source.fetch_blob(image.manifest.config, limit=MAX_CONFIGURATION)
    configuration = parse_image_configuration(data, where=where)
    if platform is not None and choose_platform(platform, [configuration.platform]) is None:
        raise NoSuchImage(f"the image is for {configuration.platform}, not for {platform}", where=where)
    if len(configuration.diff_ids) != len(image.manifest.layers):
        raise InvalidFormat(
            f"the manifest has {len(image.manifest.layers)} layers, "
            f"the configuration {len(configuration.diff_ids)}",
            where=where,
        )
    return data, configuration
