"""Pulls that are ended: what is there afterwards is whole, and the next pull goes on."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler, build_tar, file
from tests.support.pulling import pull, start_pull, store_of
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import list_images, open_images
from usercontainerd.engine.images.removal import remove_image
from usercontainerd.engine.transfers.obtaining import pull_image


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGKILL,)])
def test_interrupted(context: Context, registry: FakeRegistry, signals: tuple[int, ...]) -> None:
    """Ends at once; what was half-made goes away although the puller may be dead."""
    first, second = build_tar(file("one", uid=3)), build_tar(file("two", os.urandom(3_000_000), uid=4))
    manifest = registry.add_image("app", "latest", [first, second])
    digest = manifest["layers"][1]["digest"]
    data = registry.blobs[digest]
    gate = threading.Event()

    def stall(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:2_000_000])
        handler.wfile.flush()
        gate.wait(60)
        handler.wfile.write(data[2_000_000:])

    registry.rules[f"/v2/app/blobs/{digest}"] = stall
    process = start_pull(context, f"{registry.host}/app")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("download") and line.split()[2] != "0" and digest in line:
            break
    store = store_of(context)
    assert len(os.listdir(store.staging)) == 1
    time.sleep(0.3)  # the first layer gets unpacked meanwhile
    start = time.monotonic()
    for number in signals:
        process.send_signal(number)
    assert process.wait(60) != 0
    assert time.monotonic() - start < 45  # the registry would take a minute
    process.communicate()
    try:
        end = time.monotonic() + 60
        while (os.listdir(store.staging) or os.listdir(store.trash)) and time.monotonic() < end:
            time.sleep(0.02)
        assert os.listdir(store.staging) == []
        assert os.listdir(store.trash) == []
        assert list_images(context) == []
    finally:
        gate.set()
    # The next pull goes on: the layer that was complete is not fetched again.
    registry.rules.clear()
    asked = len(registry.seen)
    pull(context, registry)
    again = [path for path in registry.paths()[asked:] if "/blobs/" in path]
    assert not any(manifest["layers"][0]["digest"] in path for path in again) or signals == (signal.SIGKILL,)


def test_killed_at_random_moments(context: Context, registry: FakeRegistry) -> None:
    """Puller and worker alike: what is there afterwards is whole, and the next pull sweeps the rest."""
    layers = [build_tar(*[file(f"{n}/{m}", os.urandom(2000), uid=n) for m in range(400)]) for n in range(4)]
    registry.add_image("app", "latest", layers)
    for _ in range(12):
        process = start_pull(context, f"{registry.host}/app", start_new_session=True)
        time.sleep(random.uniform(0.1, 0.9))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for record in list_images(context):
            assert open_images(context).is_whole(record)
        for diff_id in open_images(context).layers.all():
            record_of_layer = open_images(context).layers.read(diff_id)
            assert record_of_layer is not None
            assert record_of_layer.entries == 400
        remove_or_not = random.random() < 0.3
        if remove_or_not and list_images(context):
            remove_image(context, "app")
    record = pull_image(context, f"{registry.host}/app")
    assert open_images(context).is_whole(record)
    assert os.listdir(store_of(context).staging) == []
    assert os.listdir(store_of(context).trash) == []
