"""Images in OCI layouts (image-layout.md; as a directory, or in a tar file as oci-archive) and in skopeo's ``dir:``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat, InvalidReference, NoSuchImage
from usercontainerd.base.typedjson import parse_json
from usercontainerd.engine.archives.members import copy_checked
from usercontainerd.oci.digest import Digest, check_digest, compute_digest, is_digest
from usercontainerd.oci.manifest import (
    ACCEPTED,
    MAX_MANIFEST,
    OCI_INDEX,
    Descriptor,
    FetchedManifest,
    Index,
    parse_manifest,
)
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.signatures import MAX_SIGNATURE, MAX_SIGNATURES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.engine.archives.members import Members
    from usercontainerd.oci.reference import Reference

INDEX = "index.json"
LAYOUT = "oci-layout"
DIR_MANIFEST = "manifest.json"
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
_LOCAL = "localhost"


class LayoutSource:
    """One image of an OCI layout: ``root`` is its entry of index.json, None for index.json itself."""

    parallel = True  # members are read by offsets, without a place of their own

    def __init__(self, members: Members, root: Descriptor | None) -> None:
        self._members = members
        self._root = root

    def close(self) -> None:
        """The archive is closed by whoever opened it: other images may be in it."""

    def fetch_manifest(self, wanted: str) -> FetchedManifest:
        """Return the document of that digest; for any other word, the one of the image itself."""
        where = self._members.where
        if is_digest(wanted):
            digest, media_type = Digest(wanted), ""
        elif self._root is None:
            data = self._members.read(INDEX, limit=MAX_MANIFEST)
            return FetchedManifest(data, compute_digest(data), OCI_INDEX, where)
        else:
            digest, media_type = self._root.digest, self._root.media_type
        data = self._members.read(name_blob(digest), limit=MAX_MANIFEST)
        check_digest(data, digest, what="manifest", where=where)
        return FetchedManifest(data, digest, media_type, where)

    def fetch_blob(self, blob: Descriptor, *, limit: int) -> bytes:
        """Return a small blob, checked."""
        return _fetch_small(self.copy_blob, blob, limit, self._members.where)

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hand a blob to ``write``. Raises ``DigestMismatch``."""
        pieces = self._members.pieces(name_blob(blob.digest))
        copy_checked(pieces, blob, write, progress, self._members.where)


class DirSource:
    """The image of a directory as skopeo's and podman's ``dir:`` writes it: blobs by their bare digits."""

    parallel = True

    def __init__(self, members: Members) -> None:
        self._members = members

    def close(self) -> None:
        """Nothing of its own is open."""

    def fetch_manifest(self, wanted: str) -> FetchedManifest:
        """Return the instance of that digest; for any other word, the manifest or index itself."""
        where = self._members.where
        if is_digest(wanted):
            digest = Digest(wanted)
            data = self._members.read(f"{digest.hex}.{DIR_MANIFEST}", limit=MAX_MANIFEST)
            check_digest(data, digest, what="manifest", where=where)
        else:
            data = self._members.read(DIR_MANIFEST, limit=MAX_MANIFEST)
            digest = compute_digest(data)
        return FetchedManifest(data, digest, "", where)

    def fetch_blob(self, blob: Descriptor, *, limit: int) -> bytes:
        """Return a small blob, checked."""
        return _fetch_small(self.copy_blob, blob, limit, self._members.where)

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hand a blob to ``write``. Raises ``DigestMismatch``."""
        copy_checked(self._members.pieces(blob.digest.hex), blob, write, progress, self._members.where)

    def read_signatures(self, instance: Digest | None) -> list[bytes]:
        """Return the files ``signature-N`` of the manifest, or of one that its index leads to."""
        prefix = "" if instance is None else f"{instance.hex}."
        files: list[bytes] = []
        # One more than allowed is enough to be too many.
        while len(files) <= MAX_SIGNATURES and self._members.has(f"{prefix}signature-{len(files) + 1}"):
            files.append(self._members.read(f"{prefix}signature-{len(files) + 1}", limit=MAX_SIGNATURE))
        return files


def name_blob(digest: Digest) -> str:
    """Where a blob is in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _fetch_small(copy: Callable[..., None], blob: Descriptor, limit: int, where: str) -> bytes:
    if blob.size > limit:
        raise InvalidFormat(
            f"the blob {blob.digest} has {blob.size} bytes, more than the {limit} allowed", where=where
        )
    data = bytearray()
    copy(blob, data.extend)
    return bytes(data)


def list_layout(members: Members) -> list[tuple[tuple[str, ...], LayoutSource]]:
    """Return the images of a layout with the names that its index gives them, in its order.

    Entries without a name that differ in their platform are one image. Raises ``InvalidFormat``.
    """
    index = read_layout_index(members)
    named: dict[Digest, tuple[Descriptor, list[str]]] = {}
    for entry in index.manifests:
        if not _is_image(entry):
            continue
        _, names = named.setdefault(entry.digest, (entry, []))
        name = name_entry(entry)
        if name and name not in names:
            names.append(name)
    nameless = [entry for entry, names in named.values() if not names]
    if len(nameless) > 1 and len(nameless) == len(named) and all(entry.platform for entry in nameless):
        return [((), LayoutSource(members, None))]
    return [(tuple(names), LayoutSource(members, entry)) for entry, names in named.values()]


def read_layout_index(members: Members) -> Index:
    """Return index.json. Raises ``InvalidFormat``."""
    where = members.where
    if members.has(LAYOUT):
        layout = parse_json(members.read(LAYOUT, limit=64 * 1024), LAYOUT, limit=64 * 1024, source=where)
        version = layout.get("imageLayoutVersion").text()
        if not version.startswith("1."):
            raise InvalidFormat(f"the layout has version {version[:40]!r}; 1.0.0 is understood", where=where)
    document = parse_manifest(members.read(INDEX, limit=MAX_MANIFEST), OCI_INDEX, where=where)
    if not isinstance(document, Index):  # its own media type would have to agree with ours
        raise InvalidFormat(f"{INDEX} is not an index", where=where)
    return document


def choose_in_layout(members: Members, name: str) -> LayoutSource:
    """Return the image that index.json calls ``name``, or the only one if that is empty.

    Raises ``NoSuchImage``, and ``InvalidFormat`` if there are several to choose from.
    """
    images = list_layout(members)
    if not name:
        if len(images) != 1:
            raise NoSuchImage(
                f"there are {len(images)} images; which one?",
                where=members.where,
                hint=_offer(images),
            )
        return images[0][1]
    index = read_layout_index(members)
    for entry in index.manifests:
        if _is_image(entry) and name in _all_names(entry):
            return LayoutSource(members, entry)
    raise NoSuchImage(f"there is no image {name!r}", where=members.where, hint=_offer(images))


def _offer(images: list[tuple[tuple[str, ...], LayoutSource]]) -> str:
    names = [name for names, _ in images for name in names]
    return f"there are {', '.join(names[:20])}" if names else "none has a name"


def _is_image(entry: Descriptor) -> bool:
    """What may be an image: not an artifact, and not a note of docker's about another entry."""
    return entry.media_type in ACCEPTED and not dict(entry.annotations).get("vnd.docker.reference.type")


def _all_names(entry: Descriptor) -> tuple[str, ...]:
    annotations = dict(entry.annotations)
    return tuple(annotations[key] for key in (CONTAINERD_NAME, REF_NAME) if annotations.get(key))


def name_entry(entry: Descriptor) -> str:
    """The name that an index gives to an image, "" if none: containerd's is full, the other often only a tag."""
    return next(iter(_all_names(entry)), "")


def parse_local_name(text: str, *, registry: str = _LOCAL) -> Reference | None:
    """The full name that a name in an archive means; short ones are of ``registry``. None if it is no name."""
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return None
    return (reference.with_registry(registry) if reference.is_short else reference).with_default_tag()
