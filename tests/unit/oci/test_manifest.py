"""Manifests, indexes and image configurations."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.oci.image import parse_image_configuration
from usercontainerd.oci.manifest import (
    DOCKER_CONFIGURATION,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIGURATION,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    check_configuration_type,
    check_layer_type,
    parse_manifest,
)
from usercontainerd.oci.platform import Platform

SHA = "sha256:" + "ab" * 32
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": SHA, "size": 5}


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIGURATION, "digest": SHA, "size": 7},
        "layers": [LAYER],
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def index(**changes: Any) -> bytes:
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": SHA,
        "size": 5,
        "platform": {"os": "linux", "architecture": "arm64"},
    }
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry], **changes}).encode()


def test_manifest() -> None:
    parsed = parse_manifest(manifest(annotations={"a": "b"}), OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert parsed.config.size == 7
    assert parsed.layers[0].digest == SHA
    assert parsed.annotations == (("a", "b"),)


def test_index() -> None:
    parsed = parse_manifest(index(), OCI_INDEX)
    assert isinstance(parsed, Index)
    assert parsed.manifests[0].platform == Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("data", "claimed", "expected"),
    [
        (manifest(mediaType=...), None, OCI_MANIFEST),
        (manifest(mediaType=...), "application/json", OCI_MANIFEST),
        (manifest(mediaType=...), f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST), "text/plain", DOCKER_MANIFEST),
        (index(mediaType=DOCKER_LIST), DOCKER_LIST, DOCKER_LIST),
        (index(mediaType=None), None, OCI_INDEX),
    ],
)
def test_media_types(data: bytes, claimed: str | None, expected: str) -> None:
    assert parse_manifest(data, claimed).media_type == expected


@pytest.mark.parametrize(
    ("data", "claimed", "message"),
    [
        (manifest(schemaVersion=1), None, "withdrawn schema 1"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws", "withdrawn schema 1"),
        (manifest(schemaVersion=3), None, "must be between 2 and 2"),
        (manifest(), DOCKER_MANIFEST, "but the registry says"),
        (manifest(mediaType="text/html"), None, "not a kind of manifest"),
        (manifest(manifests=[]), None, r"manifest\.manifests: does not belong"),
        (index(layers=[]), None, r"manifest\.layers: does not belong"),
        (index(config={"x": 1}), None, r"manifest\.config: does not belong"),
        (manifest(layers=...), None, r"manifest\.layers: is missing"),
        (index(manifests=None), None, r"manifest\.manifests: is missing"),
        (manifest(config=...), None, r"manifest\.config: expected an object"),
        (manifest(layers=[{**LAYER, "size": -1}]), None, r"manifest\.layers\[0\]\.size: must be"),
        (manifest(layers=[{**LAYER, "size": "5"}]), None, r"size: expected a whole number"),
        (
            manifest(layers=[LAYER, {**LAYER, "digest": "sha256:../../x"}]),
            None,
            r"layers\[1\]\.digest: not a digest",
        ),
        (manifest(layers=[LAYER] * 501), None, "501 elements are more than the 500"),
        (b"[]", None, "expected an object"),
        (b"<html>", None, "not valid JSON"),
    ],
)
def test_refused(data: bytes, claimed: str | None, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message):
        parse_manifest(data, claimed)


def test_too_large() -> None:
    with pytest.raises(InvalidFormat, match="more than the 4194304 allowed"):
        parse_manifest(b" " * (4 * 1024 * 1024 + 1), None)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layer_types(media_type: str) -> None:
    parsed = parse_manifest(manifest(layers=[{**LAYER, "mediaType": media_type}]), None)
    assert isinstance(parsed, Manifest)
    check_layer_type(parsed.layers[0])


def test_no_layers_and_no_images() -> None:
    descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", SHA, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidFormat, match="encrypted"):
        check_layer_type(descriptor)
    with pytest.raises(InvalidFormat, match="not a tar archive"):
        check_layer_type(Descriptor("text/plain", SHA, 1))  # type: ignore[arg-type]
    chart = {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": SHA, "size": 1}
    parsed = parse_manifest(manifest(config=chart), None)
    assert isinstance(parsed, Manifest)
    with pytest.raises(InvalidFormat, match=r"artifact of type 'application/vnd\.cncf\.helm"):
        check_configuration_type(parsed)
    docker = parse_manifest(manifest(config={**chart, "mediaType": DOCKER_CONFIGURATION}), None)
    assert isinstance(docker, Manifest)
    check_configuration_type(docker)


def configuration(config: object = None, **more: Any) -> bytes:
    document = {
        "os": "linux",
        "architecture": "amd64",
        "config": config,
        "rootfs": {"diff_ids": [SHA]},
        **more,
    }
    return json.dumps(document).encode()


def test_configuration() -> None:
    parsed = parse_image_configuration(
        configuration(
            {
                "Env": ["A=1", "B=x=y", "A=2", "EMPTY", "=odd"],
                "Cmd": ["sh", "-c", "true"],
                "Entrypoint": "/entry",
                "User": "app:app",
                "WorkingDir": "/srv",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}},
                "Labels": {"k": "v"},
                "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 3},
            },
            created="2026-01-01T00:00:00Z",
            history=[{"created_by": "x", "empty_layer": True}],
        )
    )
    assert parsed.environment == (("A", "2"), ("B", "x=y"), ("EMPTY", ""))
    assert parsed.command == ("sh", "-c", "true")
    assert parsed.entrypoint == ("/entry",)
    assert parsed.exposed_ports == ("80/tcp", "53/udp")
    assert parsed.volumes == ("/data",)
    assert parsed.healthcheck is not None
    assert parsed.healthcheck.interval == 30.0
    assert parsed.history[0].empty_layer
    assert parsed.diff_ids == (SHA,)


def test_configuration_of_scratch() -> None:
    parsed = parse_image_configuration(b'{"rootfs": {"diff_ids": null}, "config": {"Cmd": [], "Env": null}}')
    assert parsed.command is None
    assert parsed.diff_ids == ()
    assert parsed.platform.os == "linux"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (configuration({"Cmd": [1]}), r"config\.config\.Cmd\[0\]: expected a string"),
        (configuration({"Env": {"A": "1"}}), r"config\.config\.Env: expected an array"),
        (configuration({"WorkingDir": "/a\0b"}), "holds a NUL"),
        (configuration({"Env": ["A=\0"]}), "holds a NUL"),
        (configuration(rootfs={"type": "x"}), "expected 'layers'"),
        (configuration(rootfs={"diff_ids": ["sha256:x"]}), r"config\.rootfs\.diff_ids\[0\]: not a digest"),
        (b"{}", r"config\.rootfs: expected an object"),
    ],
)
def test_configuration_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message):
        parse_image_configuration(data)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(SHA),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "digest", "size", "Cmd"]), inner)
    ),
    max_leaves=8,
)
_keys = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "rootfs", "Env", "annotations"]
)


@given(st.dictionaries(_keys, _values))
def test_only_our_errors(document: dict[str, object]) -> None:
    data = json.dumps(document).encode()
    for parse in (lambda: parse_manifest(data, None), lambda: parse_image_configuration(data)):
        try:
            parse()
        except InvalidFormat:
            pass
