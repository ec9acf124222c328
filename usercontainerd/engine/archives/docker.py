"""Images in docker's own archives: manifest.json, a configuration, and layers as tar files in a tar file.

There is no manifest in the registry's sense. One is made up as containers/image does, to the byte, so that an image
has the same digest here as where podman has loaded it.
"""

from __future__ import annotations

import json

from usercontainerd.base.errors import InvalidFormat, NoSuchImage
from usercontainerd.base.typedjson import parse_json
from usercontainerd.engine.archives.input import check_growth, is_compressed, name_archive
from usercontainerd.engine.archives.members import copy_checked
from usercontainerd.oci.digest import compute_digest, is_digest
from usercontainerd.oci.image import MAX_CONFIGURATION, parse_image_configuration
from usercontainerd.oci.manifest import (
    DOCKER_CONFIGURATION,
    DOCKER_MANIFEST,
    MAX_LAYERS,
    MAX_MANIFEST,
    Descriptor,
    FetchedManifest,
)
from usercontainerd.store.archive_inflate import inflate_any
from usercontainerd.store.inflate import Codecs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from usercontainerd.engine.archives.members import Members

MANIFEST = "manifest.json"
MAX_IMAGES = 10_000
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"  # said of uncompressed ones, too


class DockerImage:
    """One element of manifest.json: names of members, and the names of the image."""

    __slots__ = ("config", "layers", "names")

    def __init__(self, config: str, names: Sequence[str], layers: Sequence[str]) -> None:
        self.config = config
        self.names = tuple(names)
        self.layers = tuple(layers)


def parse_docker_manifest(data: bytes, *, where: str) -> list[DockerImage]:
    """Parse manifest.json. Raises ``InvalidFormat``."""
    document = parse_json(data, MANIFEST, limit=MAX_MANIFEST, source=where)
    return [
        DockerImage(
            element.get("Config").text(),
            element.get("RepoTags").texts(limit=MAX_IMAGES),
            element.get("Layers").texts(limit=MAX_LAYERS),
        )
        for element in document.elements(limit=MAX_IMAGES)
    ]


class DockerArchiveSource:
    """One image of a docker archive."""

    parallel = True

    def __init__(self, members: Members, image: DockerImage) -> None:
        self._members = members
        self._image = image
        self._configuration = members.read(image.config, limit=MAX_CONFIGURATION)
        diff_ids = parse_image_configuration(self._configuration, where=members.where).diff_ids
        if len(diff_ids) != len(image.layers):
            raise InvalidFormat(
                f"{MANIFEST} lists {len(image.layers)} layers, the configuration {len(diff_ids)}",
                where=members.where,
            )
        self._layers = dict(zip(diff_ids, image.layers, strict=True))
        self._diff_ids = diff_ids

    def close(self) -> None:
        """The archive is closed by whoever opened it: other images may be in it."""

    def fetch_manifest(self, wanted: str) -> FetchedManifest:
        """Return a manifest of Docker's schema 2 with the uncompressed layers."""
        layers = {
            diff_id: Descriptor(DOCKER_LAYER, diff_id, self._measure(name))
            for diff_id, name in self._layers.items()
        }
        data = build_docker_manifest(self._configuration, [layers[diff_id] for diff_id in self._diff_ids])
        digest = compute_digest(data)
        if is_digest(wanted) and wanted != digest:
            raise NoSuchImage(f"there is no manifest {wanted}", where=self._members.where)
        return FetchedManifest(data, digest, DOCKER_MANIFEST, self._members.where)

    def fetch_blob(self, blob: Descriptor, *, limit: int) -> bytes:
        """Return the configuration."""
        if blob.digest != compute_digest(self._configuration, blob.digest.algorithm) or blob.size > limit:
            raise InvalidFormat(f"there is no small blob {blob.digest}", where=self._members.where)
        return self._configuration

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hand a layer to ``write``, uncompressed. Raises ``DigestMismatch``."""
        copy_checked(self._open_layer(self._layers[blob.digest]), blob, write, progress, self._members.where)

    def _measure(self, name: str) -> int:
        """Bytes of a layer when it is uncompressed."""
        first = next(self._members.pieces(name), b"")
        if not is_compressed(first):
            return self._members.size(name)
        return sum(map(len, self._open_layer(name)))

    def _open_layer(self, name: str) -> Iterator[bytes]:
        pieces = self._members.pieces(name)
        first = next(pieces, b"")
        if not is_compressed(first):
            yield first
            yield from pieces
            return
        consumed = produced = 0

        def read(_count: int) -> bytes:
            nonlocal consumed, first
            data, first = first or next(pieces, b""), b""
            consumed += len(data)
            return data

        try:
            for piece in inflate_any(read, Codecs()):
                produced += len(piece)
                check_growth(consumed, produced)
                yield piece
        except InvalidFormat as error:
            raise name_archive(error, self._members.where) from None


def build_docker_manifest(configuration: bytes, layers: Sequence[Descriptor]) -> bytes:
    """A manifest of Docker's schema 2, in the spelling of containers/image. Pure."""
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIGURATION,
            "size": len(configuration),
            "digest": compute_digest(configuration),
        },
        "layers": [
            {"mediaType": layer.media_type, "size": layer.size, "digest": layer.digest} for layer in layers
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def list_docker_archive(members: Members) -> list[DockerImage]:
    """Return the images of an archive in its order. Raises ``InvalidFormat``."""
    return parse_docker_manifest(members.read(MANIFEST, limit=MAX_MANIFEST), where=members.where)


def choose_in_docker_archive(
    members: Members, wanted: str, is_meant: Callable[[str], bool]
) -> list[DockerImage]:
    """Return the images meant by ``@NUMBER`` or a name (then with that name only); all if it is empty.

    Raises ``NoSuchImage``.
    """
    images = list_docker_archive(members)
    if not wanted:
        return images
    if wanted.startswith("@"):
        number = wanted[1:]
        if not number.isdecimal() or int(number) >= len(images):
            raise NoSuchImage(
                f"there is no image {wanted}",
                where=members.where,
                hint=f"there are {len(images)}, from @0 on",
            )
        return [images[int(number)]]
    for image in images:
        for name in image.names:
            if is_meant(name):
                return [DockerImage(image.config, [name], image.layers)]
    offered = ", ".join(name for image in images for name in image.names)
    raise NoSuchImage(
        f"there is no image {wanted!r}",
        where=members.where,
        hint=f"there are {offered or 'only nameless ones'}",
    )
