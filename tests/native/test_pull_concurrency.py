"""Several processes at the same store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler, build_tar, file
from tests.support.pulling import snapshot, start_pull, store_of, wait_for_children
from usercontainerd.base.errors import NoSuchImage, RegistryError, StoreError
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import list_images, open_images
from usercontainerd.engine.images.removal import remove_image
from usercontainerd.engine.transfers.obtaining import pull_image


def test_two_processes_share_the_work(context: Context, registry: FakeRegistry) -> None:
    layers = [build_tar(file(f"f{n}", os.urandom(500_000), uid=n)) for n in range(4)]
    manifest = registry.add_image("app", "latest", layers)
    reversed_layers = [*reversed(layers), build_tar(file("extra"))]
    registry.add_image("app", "reversed", reversed_layers)
    names = ["app", "app", "app:reversed", "app:reversed"]
    processes = [start_pull(context, f"{registry.host}/{name}") for name in names]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    for layer in manifest["layers"]:
        assert sum(layer["digest"] in path for path in registry.paths()) == 1
    assert len(list_images(context)) == 2
    for record in list_images(context):
        assert open_images(context).is_whole(record)
    assert os.listdir(store_of(context).staging) == []


def test_pull_and_removal_at_once(context: Context, registry: FakeRegistry) -> None:
    """Removing one image over and over never breaks another that is being pulled."""
    shared = build_tar(file("shared", b"1", uid=9))
    for number in range(6):
        registry.add_image(
            "app", str(number), [shared, build_tar(file(f"own{number}", os.urandom(1000), uid=8))]
        )
    processes = [start_pull(context, f"{registry.host}/app:{number}") for number in range(6)]
    removed = 0
    while any(process.poll() is None for process in processes):
        for image in list_images(context):
            if image.names and image.names[0].name.endswith((":0", ":1")):
                try:
                    remove_image(context, image.names[0].name)
                    removed += 1
                except NoSuchImage:
                    pass
    for process in processes:
        assert process.wait() == 0, process.communicate()[1]
    for record in list_images(context):
        assert open_images(context).is_whole(record)
    kept = {name.name.rpartition(":")[2] for record in list_images(context) for name in record.names}
    assert kept >= {"2", "3", "4", "5"}


def set_downloads(context: Context, number: int) -> None:
    Path(context.paths.config).mkdir(parents=True)
    Path(context.paths.config, "usercontainerd.toml").write_text(f"[registry]\nmax_downloads = {number}\n")


@pytest.mark.parametrize("number", [1, 3])
def test_layers_at_once(context: Context, registry: FakeRegistry, number: int) -> None:
    """As many as configured, and no more."""
    set_downloads(context, number)
    layers = [build_tar(file(f"f{n}", os.urandom(1000), uid=n)) for n in range(6)]
    manifest = registry.add_image("app", "latest", layers)
    together = threading.Barrier(number, timeout=60)
    lock = threading.Lock()
    now = 0
    most = 0

    def answer(handler: Handler) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1
        handler.answer(200, registry.blobs[handler.path.rpartition("/")[2]])

    for layer in manifest["layers"]:
        registry.rules[f"/v2/app/blobs/{layer['digest']}"] = answer
    record = pull_image(context, f"{registry.host}/app")
    assert most == number
    assert open_images(context).is_whole(record)


def test_one_failing_layer_ends_the_others(context: Context, registry: FakeRegistry) -> None:
    """At once, although they hang; what was complete stays."""
    layers = [build_tar(file(f"f{n}", os.urandom(1000), uid=n)) for n in range(3)]
    manifest = registry.add_image("app", "latest", layers)
    first, second, third = (layer["digest"] for layer in manifest["layers"])
    gate, hanging = threading.Event(), threading.Event()

    def hang(handler: Handler) -> None:
        hanging.set()
        gate.wait(60)

    def fail(handler: Handler) -> None:
        hanging.wait(60)
        handler.answer(404)

    registry.rules[f"/v2/app/blobs/{second}"] = hang
    registry.rules[f"/v2/app/blobs/{third}"] = fail
    start = time.monotonic()
    try:
        with pytest.raises(RegistryError, match=third):
            pull_image(context, f"{registry.host}/app")
        assert time.monotonic() - start < 45  # the registry would take a minute
    finally:
        gate.set()
    wait_for_children()
    registry.rules.clear()
    pull_image(context, f"{registry.host}/app")
    assert sum(first in path for path in registry.paths()) <= 2


def test_too_large_for_the_disk(context: Context, registry: FakeRegistry) -> None:
    """What is promised is compared with what is free before anything is fetched."""
    manifest = registry.add_image("app", "latest", [build_tar(file("x")), build_tar(file("y"))])
    manifest["layers"][1]["size"] = 1 << 49
    registry.add_manifest("app", "latest", manifest)
    with pytest.raises(StoreError, match=r"take more than 563 TB, only .* are free"):
        pull_image(context, f"{registry.host}/app")
    assert not any(layer["digest"] in path for path in registry.paths() for layer in manifest["layers"])
    assert snapshot(context) == []
