"""Image indexes that are edited here: all that the OCI specification (image-index.md) and Docker's manifest list know.

``manifest.Index`` is what a pull needs of one; this keeps everything, and writes it the same each time: compact, in the
order in which the specifications list the members, so that equal indexes have equal digests (and those of containers'
image libraries).
"""

from __future__ import annotations

import json

from usercontainerd.base.errors import InvalidArgument, InvalidFormat
from usercontainerd.base.records import dataclass, field, replace
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    MAX_MANIFESTS,
    MAX_SIZE,
    OCI_INDEX,
)
from usercontainerd.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PlatformDetails:
    """What an instance needs to run. ``features`` are Docker's, ``os_features`` of both."""

    architecture: str = ""
    os: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    variant: str = ""
    features: tuple[str, ...] = ()

    @property
    def platform(self) -> Platform:
        """The part that decides which instance is chosen."""
        return Platform(self.os, self.architecture, self.variant)

    def render(self, *, docker: bool) -> dict[str, Any]:
        """As JSON; OCI reserves ``features``."""
        members: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        optional: tuple[tuple[str, Any], ...] = (
            ("os.version", self.os_version),
            ("os.features", list(self.os_features)),
            ("variant", self.variant),
            ("features", list(self.features) if docker else []),
        )
        members.update((key, value) for key, value in optional if value)
        return members


@dataclass(frozen=True)
class Instance:
    """One image of an index. ``data`` and ``urls`` are not kept: nothing here uses them."""

    media_type: str
    digest: Digest
    size: int
    platform: PlatformDetails = field(default_factory=PlatformDetails)
    annotations: Pairs = ()
    artifact_type: str = ""

    @property
    def has_platform(self) -> bool:
        """False for what is not there to be run, such as an attestation's artifact."""
        return bool(self.platform.os or self.platform.architecture)

    def render(self, *, docker: bool) -> dict[str, Any]:
        """The descriptor as JSON."""
        if docker:
            return {
                "mediaType": self.media_type,
                "size": self.size,
                "digest": self.digest,
                "platform": self.platform.render(docker=True),
            }
        members: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            members["annotations"] = dict(sorted(self.annotations))
        if self.has_platform:
            members["platform"] = self.platform.render(docker=False)
        if self.artifact_type:
            members["artifactType"] = self.artifact_type
        return members


@dataclass(frozen=True)
class ImageIndex:
    """An index: instances in their order, annotations of the whole, and what it refers to (``subject``)."""

    instances: tuple[Instance, ...] = ()
    annotations: Pairs = ()
    subject: Instance | None = None
    artifact_type: str = ""

    def find(self, digest: Digest) -> Instance | None:
        """The instance with this digest."""
        return next((each for each in self.instances if each.digest == digest), None)

    def with_instance(self, instance: Instance) -> ImageIndex:
        """Return the index with ``instance``, in the place of one with the same digest or at the end.

        Raises ``InvalidArgument`` if that would be too many.
        """
        if self.find(instance.digest) is not None:
            return replace(
                self,
                instances=tuple(instance if i.digest == instance.digest else i for i in self.instances),
            )
        if len(self.instances) >= MAX_MANIFESTS:
            raise InvalidArgument(f"an index has at most {MAX_MANIFESTS} images")
        return replace(self, instances=(*self.instances, instance))

    def without(self, digest: Digest) -> ImageIndex:
        """Return the index without an instance."""
        return replace(self, instances=tuple(each for each in self.instances if each.digest != digest))


def render_index(index: ImageIndex) -> bytes:
    """The bytes of an OCI index."""
    members: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    if index.artifact_type:
        members["artifactType"] = index.artifact_type
    members["manifests"] = [each.render(docker=False) for each in index.instances]
    if index.subject is not None:
        members["subject"] = index.subject.render(docker=False)
    if index.annotations:
        members["annotations"] = dict(sorted(index.annotations))
    return _dump(members)


def render_docker_list(index: ImageIndex) -> bytes:
    """The bytes of a Docker manifest list. Raises ``InvalidFormat`` for an instance that is not of Docker's form."""
    for each in index.instances:
        if each.media_type != DOCKER_MANIFEST:
            raise InvalidFormat(
                f"the image {each.digest} is of type {each.media_type}, which Docker's list cannot hold"
            )
    members = {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST,
        "manifests": [each.render(docker=True) for each in index.instances],
    }
    return _dump(members)


def _dump(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def render_internal(index: ImageIndex) -> dict[str, Any]:
    """The index as JSON with everything that we know, for a record; ``parse_index`` reads it."""
    document: dict[str, Any] = json.loads(render_index(index))
    for members, instance in zip(document["manifests"], index.instances, strict=True):
        if instance.platform.features:
            members["platform"] = {
                **members.get("platform", {"architecture": "", "os": ""}),
                "features": list(instance.platform.features),
            }
    return document


def parse_index(data: bytes, *, where: str | None = None) -> ImageIndex:
    """Parse an OCI index or a Docker manifest list with all details. Raises ``InvalidFormat``."""
    return read_index(parse_json(data, "index", limit=MAX_MANIFEST, source=where))


def read_index(document: JsonValue) -> ImageIndex:
    """Read an index that is a part of a larger document. Raises ``InvalidFormat``."""
    subject = document.get("subject")
    return ImageIndex(
        instances=tuple(
            _read_instance(each) for each in document.get("manifests").elements(limit=MAX_MANIFESTS)
        ),
        annotations=document.get("annotations").text_map(),
        subject=None if subject.is_null else _read_instance(subject),
        artifact_type=document.get("artifactType").text(""),
    )


def _read_instance(value: JsonValue) -> Instance:
    platform = value.get("platform")
    return Instance(
        media_type=value.get("mediaType").text(),
        digest=parse_digest(value.get("digest").text(), where=value.get("digest").path),
        size=value.get("size").integer(maximum=MAX_SIZE),
        platform=PlatformDetails() if platform.is_null else _read_platform(platform),
        annotations=value.get("annotations").text_map(),
        artifact_type=value.get("artifactType").text(""),
    )


def _read_platform(value: JsonValue) -> PlatformDetails:
    return PlatformDetails(
        architecture=value.get("architecture").text(""),
        os=value.get("os").text(""),
        os_version=value.get("os.version").text(""),
        os_features=value.get("os.features").texts(limit=100),
        variant=value.get("variant").text(""),
        features=value.get("features").texts(limit=100),
    )


def read_platform_of_configuration(data: bytes, *, where: str | None = None) -> PlatformDetails:
    """Return what an image's configuration says of its platform (OCI config.md). Raises ``InvalidFormat``."""
    return _read_platform(parse_json(data, "config", limit=MAX_MANIFEST, source=where))
