"""Manifests and indexes: OCI image specification 1.1 and Docker's schema 2, which differ only in names."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.records import dataclass
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.oci.platform import Platform

MAX_MANIFEST = 4 * 1024 * 1024  # distribution specification: what every registry must take
MAX_LAYERS = 500  # as many lower layers as overlayfs takes
MAX_MANIFESTS = 10_000
MAX_SIZE = 1 << 50

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIGURATION = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIGURATION = "application/vnd.docker.container.image.v1+json"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_OCI_LAYER = "application/vnd.oci.image.layer."
_DOCKER_LAYER = "application/vnd.docker.image.rootfs."


@dataclass(frozen=True)
class Descriptor:
    """What points to content: its type, digest and exact size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    urls: tuple[str, ...] = ()
    artifact_type: str = ""


@dataclass(frozen=True)
class Manifest:
    """An image of one platform: its configuration and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    subject: Descriptor | None = None


@dataclass(frozen=True)
class Index:
    """A list of manifests, usually one for each platform (Docker: manifest list)."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()


class FetchedManifest:
    """A manifest or index, byte for byte as its source has it; ``where`` is the source's name in messages."""

    __slots__ = ("data", "digest", "media_type", "where")

    def __init__(self, data: bytes, digest: Digest, media_type: str, where: str) -> None:
        self.data = data
        self.digest = digest
        self.media_type = media_type
        self.where = where


def parse_manifest(data: bytes, media_type: str | None, *, where: str | None = None) -> Manifest | Index:
    """Parse a manifest or an index.

    ``media_type`` is the registry's word (its Content-Type, or the descriptor's), None where there is none.
    The document's own ``mediaType`` must agree with it, and a document must not be both (CVE-2021-41190).
    Raises ``InvalidFormat``.
    """
    document = parse_json(data, "manifest", limit=MAX_MANIFEST, source=where)
    if document.get("schemaVersion").integer(2) == 1 or media_type in _SCHEMA_1:
        raise InvalidFormat(
            "the image has a manifest of Docker's withdrawn schema 1",
            where=where,
            hint="it needs to be built or pushed anew with a tool of this decade",
        )
    document.get("schemaVersion").integer(2, minimum=2, maximum=2)
    kind = _decide_media_type(document, media_type)
    if kind in (OCI_INDEX, DOCKER_LIST):
        _forbid(document, kind, ("layers", "config", "fsLayers", "history"))
        manifests = document.get("manifests")
        if manifests.is_null:
            manifests.fail("is missing")
        descriptors = tuple(_parse_descriptor(m) for m in manifests.elements(limit=MAX_MANIFESTS))
        return Index(kind, descriptors, document.get("annotations").text_map())
    _forbid(document, kind, ("manifests", "fsLayers", "history"))
    layers = document.get("layers")
    if layers.is_null:
        layers.fail("is missing")
    return Manifest(
        kind,
        _parse_descriptor(document.get("config")),
        tuple(_parse_descriptor(layer) for layer in layers.elements(limit=MAX_LAYERS)),
        document.get("annotations").text_map(),
        document.get("artifactType").text(""),
        None if document.get("subject").is_null else _parse_descriptor(document.get("subject")),
    )


def _decide_media_type(document: JsonValue, claimed: str | None) -> str:
    claimed = (claimed or "").partition(";")[0].strip().lower()
    own = document.get("mediaType").text("")
    if claimed not in ACCEPTED:
        # "application/json", "text/plain" and the like are what a file server says.
        claimed = ""
    if own and own not in ACCEPTED:
        document.get("mediaType").fail(f"{own[:200]!r} is not a kind of manifest that is understood")
    if own and claimed and own != claimed:
        document.get("mediaType").fail(f"says {own}, but the registry says {claimed}")
    if own or claimed:
        return own or claimed
    return OCI_INDEX if document.has("manifests") else OCI_MANIFEST


def _forbid(document: JsonValue, kind: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if document.has(key):
            document.get(key).fail(f"does not belong into a document of type {kind}")


def _parse_descriptor(value: JsonValue) -> Descriptor:
    platform = value.get("platform")
    return Descriptor(
        media_type=value.get("mediaType").text(),
        digest=parse_digest(value.get("digest").text(), where=value.get("digest").path),
        size=value.get("size").integer(maximum=MAX_SIZE),
        platform=None
        if platform.is_null
        else Platform(
            platform.get("os").text(""),
            platform.get("architecture").text(""),
            platform.get("variant").text(""),
        ),
        annotations=value.get("annotations").text_map(),
        urls=value.get("urls").texts(limit=100),
        artifact_type=value.get("artifactType").text(""),
    )


def check_layer_type(layer: Descriptor, *, where: str | None = None) -> None:
    """Raise ``InvalidFormat`` unless ``layer`` is a tar archive in a compression that is possible here.

    The compression itself is told by the first bytes: registries hold gzip layers labelled as plain tar.
    """
    media_type = layer.media_type
    if "+encrypted" in media_type:
        raise InvalidFormat("the image's layers are encrypted, which is not supported", where=where)
    if media_type.startswith((f"{_OCI_LAYER}v1.tar", f"{_OCI_LAYER}nondistributable.v1.tar")):
        return
    if media_type.startswith((f"{_DOCKER_LAYER}diff.tar", f"{_DOCKER_LAYER}foreign.diff.tar")):
        return
    raise InvalidFormat(f"a layer is of type {media_type[:200]!r}, not a tar archive", where=where)


def check_configuration_type(manifest: Manifest, *, where: str | None = None) -> None:
    """Raise ``InvalidFormat`` if the manifest is of an artifact (a chart, a signature), not of an image."""
    if manifest.config.media_type not in (OCI_CONFIGURATION, DOCKER_CONFIGURATION):
        kind = manifest.artifact_type or manifest.config.media_type
        raise InvalidFormat(f"this is an artifact of type {kind[:200]!r}, not a container image", where=where)
