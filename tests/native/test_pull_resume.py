"""Layers that have come in part: the next pull, of whatever process, fetches only the rest."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler, build_tar, digest_of, file
from tests.support.pulling import pull, snapshot, start_pull, store_of
from usercontainerd.base.errors import RegistryError
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import open_images
from usercontainerd.engine.images.removal import remove_image
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.oci.digest import Digest
from usercontainerd.store.partial import measure_partial, partial_path

SENT = 8 * 256 * 1024  # whole pieces: what is between them is lost with the process


class BrokenBlob:
    """An image of one layer whose blob stops after ``SENT`` bytes, until the rule is taken away."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        layer = build_tar(file("one", os.urandom(3_000_000), uid=3))
        manifest = registry.add_image("app", "latest", [layer])
        self.digest = Digest(manifest["layers"][0]["digest"])
        self.data = registry.blobs[self.digest]
        self.gate = threading.Event()
        self.path = f"/v2/app/blobs/{self.digest}"
        registry.rules[self.path] = self.answer

    def answer(self, handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.data)))
        handler.end_headers()
        handler.wfile.write(self.data[:SENT])
        handler.wfile.flush()
        self.gate.wait(60)
        handler.close_connection = True

    def mend(self) -> None:
        self.gate.set()
        self.registry.rules.clear()
        self.registry.seen.clear()

    def ranges(self) -> list[str]:
        """What was asked for of the blob, "" for the whole."""
        return [headers.get("range", "") for path, headers in self.registry.seen if path == self.path]


@pytest.fixture
def broken(registry: FakeRegistry) -> BrokenBlob:
    return BrokenBlob(registry)


def wait_for_part(context: Context, broken: BrokenBlob) -> None:
    end = time.monotonic() + 60
    while measure_partial(store_of(context), broken.digest) != SENT:
        assert time.monotonic() < end
        time.sleep(0.01)


def leave_part(context: Context, broken: BrokenBlob, number: int = signal.SIGKILL) -> int:
    """Have a pull killed in the middle of the blob; return how many bytes it has left."""
    process = start_pull(context, f"{broken.registry.host}/app", start_new_session=True)
    wait_for_part(context, broken)
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    broken.mend()
    return measure_partial(store_of(context), broken.digest)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_next_pull_goes_on(context: Context, broken: BrokenBlob, number: int) -> None:
    assert leave_part(context, broken, number) == SENT
    root = pull(context, broken.registry)
    assert broken.ranges() == [f"bytes={SENT}-"]
    assert (root / "one").stat().st_size == 3_000_000
    assert os.listdir(store_of(context).partial) == []


def test_a_failed_pull_leaves_its_part(context: Context, broken: BrokenBlob) -> None:
    def fail(handler: Handler) -> None:
        if "Range" in handler.headers:
            handler.answer(404)
        else:
            broken.gate.set()
            broken.answer(handler)

    broken.registry.rules[broken.path] = fail
    with pytest.raises(RegistryError):
        pull(context, broken.registry)
    broken.mend()
    pull(context, broken.registry)
    assert broken.ranges() == [f"bytes={SENT}-"]


def test_a_registry_without_ranges(context: Context, broken: BrokenBlob) -> None:
    leave_part(context, broken)
    broken.registry.rules[broken.path] = lambda handler: handler.answer(200, broken.data)
    pull(context, broken.registry)
    assert broken.ranges() == [f"bytes={SENT}-"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"\0" * len(data),
        lambda data: data[:1000] + b"x" + data[1001:],
        lambda data: data * 3,
        lambda data: b"",
    ],
)
def test_a_damaged_part_is_fetched_anew(
    context: Context, broken: BrokenBlob, damage: Callable[[bytes], bytes]
) -> None:
    leave_part(context, broken)
    path = Path(partial_path(store_of(context), broken.digest))
    path.write_bytes(damage(path.read_bytes()))
    root = pull(context, broken.registry)
    assert "" in broken.ranges()
    assert (root / "one").stat().st_size == 3_000_000
    assert os.listdir(store_of(context).partial) == []
    assert os.listdir(store_of(context).staging) == []


def test_one_that_waits_takes_over(context: Context, broken: BrokenBlob) -> None:
    """Two processes want the same layer; the one that fetches it is killed, the other goes on where it was."""
    process = start_pull(context, f"{broken.registry.host}/app", start_new_session=True)
    wait_for_part(context, broken)
    waiting = start_pull(context, f"{broken.registry.host}/app")
    assert waiting.stdout is not None
    assert any(line.startswith("wait") for line in waiting.stdout)
    broken.mend()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors
    assert broken.ranges() == [f"bytes={SENT}-"]


def test_blobs_can_be_kept(context: Context, registry: FakeRegistry) -> None:
    Path(context.paths.config).mkdir(parents=True)
    Path(context.paths.config, "usercontainerd.toml").write_text("[store]\nkeep_blobs = true\n")
    layers = [build_tar(file(name, b"1")) for name in ("a", "b")]
    manifest = registry.add_image("app", "latest", layers)
    registry.add_image("app", "other", layers[:1])
    pull_image(context, f"{registry.host}/app")
    pull_image(context, f"{registry.host}/app:other")
    kept = [Path(store_of(context).blob(Digest(layer["digest"]))) for layer in manifest["layers"]]
    assert [digest_of(path.read_bytes()) for path in kept] == [
        layer["digest"] for layer in manifest["layers"]
    ]
    remove_image(context, f"{registry.host}/app")
    assert [path.exists() for path in kept] == [True, False]
    remove_image(context, f"{registry.host}/app:other")
    assert snapshot(context) == []


def test_a_blob_is_kept_where_its_archive_cannot_be_made_again(
    context: Context, registry: FakeRegistry
) -> None:
    twice = build_tar(file("twice", bytes(9 << 20)), file("twice", b"second"))
    manifest = registry.add_image("app", "latest", [build_tar(file("once")), twice])
    record = pull_image(context, f"{registry.host}/app")
    blobs = open_images(context).blobs
    assert [blobs.has(Digest(layer["digest"])) for layer in manifest["layers"]] == [False, True]
    assert open_images(context).is_whole(record)
