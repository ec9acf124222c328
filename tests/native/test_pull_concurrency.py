"""Several processes at the same store."""

from __future__ import annotations

import os

from tests.support.fakeregistry import FakeRegistry, build_tar, file
from tests.support.pulling import start_pull, store_of
from usercontainerd.base.errors import (
    NoSuchImage,
)
from usercontainerd.engine.context import Context
from usercontainerd.engine.image_removal import remove_image
from usercontainerd.engine.images import list_images, open_images


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
