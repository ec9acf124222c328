"""What is added to an index: an image of this store, of a registry or of an archive, as an entry with its platform."""

from __future__ import annotations

import os

from usercontainerd.base.errors import NoSuchImage, StoreError, UsercontainerError
from usercontainerd.base.records import dataclass
from usercontainerd.engine.images.local import find_image, open_images, read_registries
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess
from usercontainerd.engine.registries.endpoints import choose_meaning, try_candidates
from usercontainerd.oci.image import MAX_CONFIGURATION
from usercontainerd.oci.index import (
    ImageIndex,
    Instance,
    PlatformDetails,
    parse_index,
    read_platform_of_configuration,
)
from usercontainerd.oci.manifest import Index, Manifest, parse_manifest
from usercontainerd.oci.platform import choose_platform, plan_host_platform
from usercontainerd.oci.reference import Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.registries.source import RegistrySource
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import FetchedManifest
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord

REGISTRY = "docker://"
_IMAGE_CONFIGURATIONS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)


@dataclass(frozen=True)
class Member:
    """An entry, and the repository (``registry/repository``) that has it; empty if none does."""

    instance: Instance
    source: str = ""


def split_registry(text: str) -> tuple[str, bool]:
    """Return the name, and whether ``docker://`` says that the registry's image is meant and none that is here."""
    return text.removeprefix(REGISTRY), text.startswith(REGISTRY)


def find_members(
    context: Context, text: str, *, everything: bool, access: RegistryAccess = AS_CONFIGURED
) -> list[Member]:
    """Return what ``text`` adds to an index: what is here, else what the registry has.

    Of an index, the image for this machine; with ``everything`` all of them. Raises ``NoSuchImage``…
    """
    from usercontainerd.engine.archives.loading import pull_archived, split_transport
    from usercontainerd.engine.images.indexes import find_index

    archived = split_transport(text)
    if archived is not None:
        images = open_images(context)
        return [describe_image(images, loaded.record, "") for loaded in pull_archived(context, text)]
    name, forced = split_registry(text)
    if not forced:
        index = find_index(context, name)
        if index is not None:
            return [
                Member(each, index.sources.get(each.digest, ""))
                for each in choose_instances(index.index, text, everything)
            ]
        local = find_image(context, name)
        if local is not None:
            return [describe_image(open_images(context), local, name)]
    return _fetch_members(context, name, everything, access)


def choose_instances(index: ImageIndex, text: str, everything: bool) -> Sequence[Instance]:
    """All images of an index, or the one for this machine. Raises ``NoSuchImage``."""
    if everything:
        return index.instances
    number = choose_platform(
        plan_host_platform(os.uname().machine),
        [each.platform.platform if each.has_platform else None for each in index.instances],
    )
    if number is None:
        raise NoSuchImage(f"{text} has no image for this machine", hint="--all adds all of its images")
    return index.instances[number : number + 1]


def describe_image(images: ImageStore, record: ImageRecord, name: str) -> Member:
    """The entry of an image of this store. Raises ``StoreError`` if its manifest is not here."""
    try:
        wanted = str(parse_reference(name).with_default_tag()) if name else ""
    except UsercontainerError:
        wanted = ""  # an ID
    chosen = next((n for n in record.names if n.name == wanted or n.name.endswith(f"/{wanted}")), None)
    digest, data, manifest = _read_manifest(images, record, chosen.digests if chosen is not None else ())
    configuration = images.blobs.read(record.id)
    instance = Instance(
        manifest.media_type,
        digest,
        len(data),
        read_platform_of_configuration(configuration, where=images.store.blob(record.id)),
        artifact_type=manifest.artifact_type,
    )
    remote = (
        each.reference for each in (chosen, *record.names) if each is not None and digest in each.digests
    )
    return Member(instance, next((each.name for each in remote if each.registry != "localhost"), ""))


def _read_manifest(
    images: ImageStore, record: ImageRecord, likely: Sequence[Digest]
) -> tuple[Digest, bytes, Manifest]:
    for digest in dict.fromkeys((*reversed(likely), record.manifest)):
        where = images.store.blob(digest)
        try:
            data = images.blobs.read(digest)
            document = parse_manifest(data, None, where=where)
        except UsercontainerError:
            continue
        if isinstance(document, Manifest) and document.config.digest == record.id:
            return digest, data, document
    raise StoreError(
        f"the manifest of the image {record.short_id} is not here",
        where=images.store.blob(record.manifest),
        hint="pull the image again",
    )


def fetch_document(context: Context, name: str, access: RegistryAccess) -> tuple[FetchedManifest, str]:
    """Fetch the manifest or index of a name; return it and where it was."""

    def attempt(source: RegistrySource, reference: Reference) -> tuple[FetchedManifest, str]:
        try:
            fetched = source.fetch_manifest(reference.wanted)
        finally:
            source.close()
        return fetched, str(reference)

    configuration = read_registries(context)
    meaning, _ = choose_meaning(configuration, parse_reference(name).with_default_tag())
    return try_candidates(context, configuration, meaning.candidates, attempt, access=access)


def _fetch_members(context: Context, name: str, everything: bool, access: RegistryAccess) -> list[Member]:
    def attempt(source: RegistrySource, reference: Reference) -> list[Member]:
        try:
            return _describe_remote(source, reference, everything)
        finally:
            source.close()

    configuration = read_registries(context)
    meaning, _ = choose_meaning(configuration, parse_reference(name).with_default_tag())
    return try_candidates(context, configuration, meaning.candidates, attempt, access=access)


def _describe_remote(source: RegistrySource, reference: Reference, everything: bool) -> list[Member]:
    fetched = source.fetch_manifest(reference.wanted)
    document = parse_manifest(fetched.data, fetched.media_type, where=fetched.where)
    if isinstance(document, Index):
        index = parse_index(fetched.data, where=fetched.where)
        return [Member(each, reference.name) for each in choose_instances(index, str(reference), everything)]
    platform = PlatformDetails()
    if document.config.media_type in _IMAGE_CONFIGURATIONS:
        configuration = source.fetch_blob(document.config, limit=MAX_CONFIGURATION)
        platform = read_platform_of_configuration(configuration, where=fetched.where)
    instance = Instance(
        document.media_type,
        fetched.digest,
        len(fetched.data),
        platform,
        artifact_type=document.artifact_type,
    )
    return [Member(instance, reference.name)]
