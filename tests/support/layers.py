"""A store of a test's own into which layers get by the worker, without images or registries around them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.fakeregistry import digest_of
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.layer_streams import open_layer_tar
from usercontainerd.engine.images.local import empty_trash, start_worker
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layers import LayerRecord
from usercontainerd.store.layout import Store
from usercontainerd.store.stage import Stage
from usercontainerd.store.worker import Unpacked, UnpackLimits, Worker


class LayerBench:
    """A worker, and a store whose layers come from it."""

    def __init__(self, context: Context, worker: Worker, stage: Stage) -> None:
        self.context = context
        self.worker = worker
        self.store = Store(context.paths)
        self.layers = ImageStore(self.store).layers
        self._stage = stage
        self._count = 0

    def unpack(
        self, data: bytes, limits: UnpackLimits | None = None, *, defer_links: bool = False
    ) -> tuple[Unpacked, str]:
        """Unpack an archive in the stage; return what it is and the layer's directory there."""
        self._count += 1
        directory = self._stage.make_directory(f"{self._count}")
        unpacking = self.worker.start_unpack(
            f"{directory}/diff", limits or UnpackLimits(), "sha256", defer_links=defer_links
        )
        try:
            try:
                unpacking.write(data)
            except BrokenPipeError:
                pass  # it says why at the end
            return unpacking.finish(), directory
        finally:
            unpacking.close()

    def add(self, data: bytes) -> Digest:
        """Have an archive as a layer in the store; return its diffID."""
        diff_id = parse_digest(digest_of(data))
        unpacked, directory = self.unpack(data)
        assert unpacked.diff_id == diff_id
        self.layers.commit(directory, LayerRecord(diff_id, size=unpacked.size, entries=unpacked.entries))
        return diff_id

    def diff(self, diff_id: Digest) -> Path:
        """Where the layer's files are."""
        return Path(self.layers.directory(diff_id))

    def rebuild(self, diff_id: Digest) -> bytes:
        """Return the layer's exact archive."""
        with open_layer_tar(self.context, self.worker, diff_id) as tar:
            return b"".join(iter(lambda: tar.read(1 << 20), b""))


@contextmanager
def open_layer_bench(directory: Path) -> Iterator[LayerBench]:
    """A bench whose store is below ``directory`` and is gone at the end."""
    environment = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    environment["XDG_CONFIG_HOME"] = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    context = build_context(environment, find_programs(), os.getuid(), os.getgid())
    store = Store(context.paths)
    store.prepare()
    with Stage(store) as stage, start_worker(context) as worker:
        stage.hand_to(worker)
        yield LayerBench(context, worker, stage)
    os.rename(store.layers, f"{store.trash}/layers")
    empty_trash(context)
    assert os.listdir(store.trash) == []
