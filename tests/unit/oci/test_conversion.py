"""Manifests made anew: the words of OCI and of Docker, and what each cannot say."""

from __future__ import annotations

import json

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.oci.conversion import (
    ManifestForm,
    build_manifest,
    convert_layer,
    find_compression,
    find_form,
)
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.manifest import (
    DOCKER_CONFIGURATION,
    DOCKER_MANIFEST,
    OCI_CONFIGURATION,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)

OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
DIGEST = compute_digest(b"")


def layer(media_type: str) -> Descriptor:
    return Descriptor(media_type, DIGEST, 7, annotations=(("a", "b"),))


@pytest.mark.parametrize(
    ("oci", "docker"),
    [(OCI, DOCKER), (f"{OCI}+gzip", f"{DOCKER}.gzip")],
)
def test_layers_both_ways(oci: str, docker: str) -> None:
    assert convert_layer(layer(oci), ManifestForm.DOCKER).media_type == docker
    assert convert_layer(layer(docker), ManifestForm.OCI).media_type == oci
    assert convert_layer(layer(oci), ManifestForm.OCI).media_type == oci
    assert convert_layer(layer(docker), ManifestForm.DOCKER).media_type == docker


def test_zstd_is_ocis_alone() -> None:
    assert convert_layer(layer(f"{DOCKER}.zstd"), ManifestForm.OCI).media_type == f"{OCI}+zstd"
    with pytest.raises(InvalidArgument, match="zstd"):
        convert_layer(layer(f"{OCI}+zstd"), ManifestForm.DOCKER)


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (OCI, "none"),
        (f"{OCI}+gzip", "gzip"),
        (f"{OCI}+zstd", "zstd"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"),
        (DOCKER, "none"),
        (f"{DOCKER}.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
        ("application/octet-stream", None),
        (f"{OCI}+gzip+encrypted", None),
    ],
)
def test_compression(media_type: str, compression: str | None) -> None:
    assert find_compression(media_type) == compression


@pytest.mark.parametrize("form", list(ManifestForm))
def test_what_is_built_can_be_read(form: ManifestForm) -> None:
    original = Manifest(
        OCI_MANIFEST,
        Descriptor(OCI_CONFIGURATION, DIGEST, 5),
        (layer(f"{OCI}+gzip"),),
        annotations=(("key", "value"),),
        artifact_type="signature",
        subject=Descriptor(OCI_MANIFEST, DIGEST, 9),
    )
    data, media_type = build_manifest(original, original.layers, form)
    built = parse_manifest(data, media_type)
    assert isinstance(built, Manifest)
    assert find_form(media_type) is form
    docker = form is ManifestForm.DOCKER
    assert media_type == (DOCKER_MANIFEST if docker else OCI_MANIFEST)
    assert built.config.media_type == (DOCKER_CONFIGURATION if docker else OCI_CONFIGURATION)
    assert built.config.digest == DIGEST
    assert built.annotations == (() if docker else original.annotations)
    assert built.artifact_type == ("" if docker else "signature")
    assert built.subject == (None if docker else original.subject)
    assert built.layers[0].annotations == (() if docker else (("a", "b"),))
    assert json.loads(data)["layers"][0]["size"] == 7
