"""Manifests made anew for a push: in OCI's words or Docker's, with layers that are compressed in another way. Pure."""

from __future__ import annotations

import json
from enum import StrEnum

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.oci.manifest import (
    DOCKER_CONFIGURATION,
    DOCKER_MANIFEST,
    OCI_CONFIGURATION,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_OCI = "application/vnd.oci.image.layer.v1.tar"
_OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"


class ManifestForm(StrEnum):
    """Whose words a manifest is written in."""

    OCI = "oci"
    DOCKER = "v2s2"  # Docker's schema 2


def find_form(media_type: str) -> ManifestForm:
    """Return the form of a manifest by its media type."""
    return ManifestForm.DOCKER if media_type == DOCKER_MANIFEST else ManifestForm.OCI


def find_compression(media_type: str) -> str | None:
    """Return ``none``, ``gzip`` or ``zstd`` as a layer's media type says it; None for anything else."""
    for base, sign in (
        (_OCI, "+"),
        (_OCI_NONDISTRIBUTABLE, "+"),
        (_DOCKER, "."),
        (_DOCKER_FOREIGN, "."),
    ):
        if media_type == base:
            return "none"
        if media_type in (f"{base}{sign}gzip", f"{base}{sign}zstd"):
            return media_type.rpartition(sign)[2]
    return None


def convert_layer_type(media_type: str, *, docker: bool) -> str:
    """Return the media type of the same blob in Docker's words, or in OCI's.

    One that is in these words already stays, also if it says that others must not have the layer; so does one that
    is unknown.
    """
    compression = find_compression(media_type)
    own = _DOCKER.rpartition(".rootfs.")[0] if docker else _OCI.rpartition(".layer.")[0]
    if compression is None or media_type.startswith(own):
        return media_type
    if compression == "none":
        return _DOCKER if docker else _OCI
    return f"{_DOCKER}.{compression}" if docker else f"{_OCI}+{compression}"


def convert_layer(layer: Descriptor, form: ManifestForm) -> Descriptor:
    """Return the descriptor of the same blob in the words of ``form``.

    Raises ``InvalidArgument`` for what Docker's form has no word for (zstd).
    """
    media_type = convert_layer_type(layer.media_type, docker=form is ManifestForm.DOCKER)
    if media_type != layer.media_type and media_type == f"{_DOCKER}.zstd":
        raise InvalidArgument(
            "Docker's form of a manifest has no layers compressed with zstd",
            hint="--format oci, or another --compression-format",
        )
    return Descriptor(media_type, layer.digest, layer.size, annotations=layer.annotations, urls=layer.urls)


def build_manifest(original: Manifest, layers: Sequence[Descriptor], form: ManifestForm) -> tuple[bytes, str]:
    """Return a manifest of the same image with these layers, and its media type.

    Docker's form has no annotations, and refers to nothing.
    """
    docker = form is ManifestForm.DOCKER
    config = Descriptor(
        DOCKER_CONFIGURATION if docker else OCI_CONFIGURATION, original.config.digest, original.config.size
    )
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _render_descriptor(config, docker),
        "layers": [_render_descriptor(convert_layer(layer, form), docker) for layer in layers],
    }
    if not docker:
        if original.artifact_type:
            document["artifactType"] = original.artifact_type
        if original.subject is not None:
            document["subject"] = _render_descriptor(original.subject, docker)
        if original.annotations:
            document["annotations"] = dict(original.annotations)
    return json.dumps(document, separators=(",", ":")).encode(), media_type


def _render_descriptor(descriptor: Descriptor, docker: bool) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.urls:
        rendered["urls"] = list(descriptor.urls)
    if descriptor.annotations and not docker:
        rendered["annotations"] = dict(descriptor.annotations)
    return rendered
