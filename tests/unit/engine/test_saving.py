"""Manifests and indexes of what is saved."""

from __future__ import annotations

import json

import pytest

from tests.support.archives import build_configuration
from tests.support.fakeregistry import digest_of
from usercontainerd.engine.archives.saving import SavedImage, build_oci_manifest, merge_entries
from usercontainerd.oci.conversion import convert_layer_type
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import DOCKER_MANIFEST, OCI_MANIFEST, Descriptor, Manifest, parse_manifest
from usercontainerd.store.records import ImageRecord

CONFIGURATION = build_configuration([b"layer"])
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYERS = [Descriptor(GZIP, Digest(digest_of(b"blob")), 4)]


def image(original: bytes | None) -> SavedImage:
    digest = Digest(digest_of(CONFIGURATION))
    record = ImageRecord(
        digest, manifest=digest, layers=[], size=0, created="", platform="linux/amd64", pulled=0
    )
    if original is None:
        return SavedImage(record, [], CONFIGURATION, None)
    manifest = parse_manifest(original, None)
    assert isinstance(manifest, Manifest)
    return SavedImage(record, [], CONFIGURATION, (original, manifest))


def test_the_original_manifest_stays_where_it_can() -> None:
    original = json.dumps(
        json.loads(build_oci_manifest(CONFIGURATION, LAYERS, {"a": "b"})), indent=3
    ).encode()
    saved = image(original)
    assert saved.settle_manifest(OCI_MANIFEST, LAYERS) == original
    other = [Descriptor(GZIP, Digest(digest_of(b"other")), 5)]
    made = parse_manifest(saved.settle_manifest(OCI_MANIFEST, other), None)
    assert isinstance(made, Manifest)
    assert (made.layers, made.annotations) == (tuple(other), (("a", "b"),))
    docker = parse_manifest(saved.settle_manifest(DOCKER_MANIFEST, LAYERS), None)
    assert docker.media_type == DOCKER_MANIFEST
    assert image(None).settle_manifest(OCI_MANIFEST, LAYERS) == build_oci_manifest(CONFIGURATION, LAYERS)


@pytest.mark.parametrize(
    ("media_type", "docker", "oci"),
    [
        (GZIP, "application/vnd.docker.image.rootfs.diff.tar.gzip", GZIP),
        (
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.oci.image.layer.v1.tar",
        ),
        ("application/x-other", "application/x-other", "application/x-other"),
    ],
)
def test_layer_types(media_type: str, docker: str, oci: str) -> None:
    assert convert_layer_type(media_type, docker=True) == docker
    assert convert_layer_type(media_type, docker=False) == oci


def test_adding_to_an_index() -> None:
    def entry(digest: str, name: str = "") -> dict[str, object]:
        named = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        return {"digest": digest, **named}

    present = [entry("1", "a"), entry("2", "b"), "odd", entry("3")]
    assert merge_entries(present, [entry("4", "a")]) == [entry("2", "b"), "odd", entry("3"), entry("4", "a")]
    assert merge_entries(present, [entry("3")]) == [entry("1", "a"), entry("2", "b"), "odd", entry("3")]
    assert merge_entries(present, [entry("2")]) == present
    assert merge_entries([], [entry("1"), entry("1", "x")]) == [entry("1"), entry("1", "x")]
