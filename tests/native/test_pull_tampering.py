"""Blobs, manifests and configurations that are not what was promised."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler, build_tar, digest_of, file
from tests.support.pulling import SMALL, pull, snapshot, store_of, wait_for_children
from usercontainerd.base.errors import (
    DigestMismatch,
    InvalidFormat,
    RegistryError,
    UsercontainerError,
)
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import list_images
from usercontainerd.engine.transfers.obtaining import pull_image

pytestmark = pytest.mark.usefixtures("hasty")


def test_tampered_blob(context: Context, registry: FakeRegistry) -> None:
    good, bad = build_tar(file("good", b"1")), build_tar(file("bad", os.urandom(2_000_000)))
    manifest = registry.add_image("app", "latest", [good, bad])
    digest = manifest["layers"][1]["digest"]
    changed = bytearray(registry.blobs[digest])
    changed[len(changed) // 2] ^= 1
    registry.blobs[digest] = bytes(changed)
    pull_image_before = snapshot(context)
    with pytest.raises(DigestMismatch) as caught:
        pull(context, registry)
    assert digest in str(caught.value)
    assert digest_of(bytes(changed)) in str(caught.value)
    assert snapshot(context) == pull_image_before
    assert os.listdir(store_of(context).layers) == []
    assert list_images(context) == []
    # Mended, it can be pulled.
    changed[len(changed) // 2] ^= 1
    registry.blobs[digest] = bytes(changed)
    pull(context, registry)
    wait_for_children()


REGISTRY_CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def find_layer(storage: Path, name: str) -> Path:
    """The file that docker-registry has of the only layer of NAME:latest."""

    def blob(digest: str) -> Path:
        return storage / "blobs/sha256" / digest[7:9] / digest[7:] / "data"

    link = storage / "repositories" / name / "_manifests/tags/latest/current/link"
    return blob(json.loads(blob(link.read_text()).read_bytes())["layers"][0]["digest"])


@pytest.mark.skipif(not os.access("/usr/bin/docker-registry", os.X_OK), reason="no docker-registry here")
def test_tampered_blob_in_a_real_registry(context: Context, tmp_path: Path) -> None:
    """One byte flipped in the registry's own storage."""
    try:
        shutil.copytree("/var/lib/registry/docker", tmp_path / "registry" / "docker")
    except OSError:
        pytest.skip("the machine's registry cannot be copied")
    layer = find_layer(tmp_path / "registry/docker/registry/v2", "busybox")
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 0x10
    layer.chmod(0o600)
    layer.write_bytes(data)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    configuration = tmp_path / "registry.yml"
    configuration.write_text(REGISTRY_CONFIGURATION.format(directory=tmp_path / "registry", port=port))
    Path(context.paths.config, "..", "containers", "registries.conf").resolve().write_text(
        f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    process = subprocess.Popen(["docker-registry", "serve", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        before = snapshot(context)
        with pytest.raises(DigestMismatch) as caught:
            pull_image(context, f"127.0.0.1:{port}/busybox")
        assert f"expected sha256:{layer.parent.name}" in str(caught.value)
        assert f"got {digest_of(bytes(data))}" in str(caught.value)
        assert snapshot(context) == before
    finally:
        process.terminate()
        process.wait()


def test_wrong_diff_id(context: Context, registry: FakeRegistry) -> None:
    lie = "sha256:" + "12" * 32
    registry.add_image("app", "latest", [SMALL], {"rootfs": {"type": "layers", "diff_ids": [lie]}})
    with pytest.raises(DigestMismatch, match=lie) as caught:
        pull(context, registry)
    assert digest_of(SMALL) in str(caught.value)
    assert snapshot(context) == []


def truncate(handler: Handler, data: bytes) -> None:
    handler.answer(200, data[: len(data) // 2], {"Content-Length": ""})


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (lambda handler, data: handler.answer(500), RegistryError),
        (lambda handler, data: handler.answer(404), RegistryError),
        (lambda handler, data: handler.answer(200, data + b"x"), RegistryError),
        (truncate, DigestMismatch),
        (lambda handler, data: handler.answer(200, b"\0" * len(data)), DigestMismatch),
        (
            lambda handler, data: handler.answer(200, gzip.compress(b"")[:10].ljust(len(data), b"\xff")),
            DigestMismatch,
        ),
    ],
)
def test_hostile_blobs(
    context: Context,
    registry: FakeRegistry,
    rule: Callable[[Handler, bytes], None],
    error: type[UsercontainerError],
) -> None:
    manifest = registry.add_image("app", "latest", [build_tar(file("x", os.urandom(1_000_000)))])
    digest = manifest["layers"][0]["digest"]
    data = registry.blobs[digest]
    registry.rules[f"/v2/app/blobs/{digest}"] = lambda handler: rule(handler, data)
    with pytest.raises(error):
        pull(context, registry)
    assert snapshot(context) == []
    wait_for_children()


def test_bomb(context: Context, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    from usercontainerd.engine.transfers import pulling
    from usercontainerd.store.worker import UnpackLimits

    monkeypatch.setattr(pulling, "UnpackLimits", lambda: UnpackLimits(size=10_000_000))
    registry.add_image("app", "latest", [build_tar(file("zeros", bytes(20_000_000)))])
    with pytest.raises(InvalidFormat, match="more than the 10000000 bytes"):
        pull(context, registry)
    assert snapshot(context) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": []}}, "1 layers, the configuration 0"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:../../../x"]}}, "not a digest"),
        ({"rootfs": 5}, "expected an object"),
    ],
)
def test_bad_configurations(
    context: Context, registry: FakeRegistry, config: dict[str, object], message: str
) -> None:
    registry.add_image("app", "latest", [SMALL], config)
    with pytest.raises(InvalidFormat, match=message):
        pull(context, registry)
    assert snapshot(context) == []


def test_garbage_manifests(context: Context, registry: FakeRegistry) -> None:
    for data in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>",
        b"{" * 5000,
        json.dumps({"schemaVersion": 2}).encode(),
    ):
        registry.add_manifest("app", "latest", data)
        with pytest.raises(InvalidFormat):
            pull(context, registry)
    assert snapshot(context) == []


def test_a_layer_that_is_elsewhere(context: Context, registry: FakeRegistry) -> None:
    """The address of a foreign layer is never asked; one that the registry has all the same is as good as others."""
    manifest = registry.add_image(
        "app",
        "latest",
        [SMALL],
        media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    )
    manifest["layers"][0]["urls"] = [f"http://{registry.host}/elsewhere"]
    registry.add_manifest("app", "latest", manifest)
    data = registry.blobs.pop(manifest["layers"][0]["digest"])
    with pytest.raises(RegistryError, match="gives away at another address"):
        pull(context, registry)
    assert not any("elsewhere" in path for path in registry.paths())
    registry.add_blob(data)
    assert (pull(context, registry) / "bin" / "sh").exists()
