"""One pull of one image from any source: the order of its steps, and who holds which lock when.

1. Fetch the manifest, through an index if need be, and the configuration; both are checked by digest.
2. Take the locks of all layers, in the order of their diffIDs, so that two pulls never wait for each other
in a ring: exclusively; those already here at once only shared. Another process that pulls the same is waited
for, and its layers are used. 3. Stream each missing layer to the worker, which inflates, hashes and unpacks
it in the user namespace, in a stage. The compressed bytes are hashed here. The next layer is fetched while
the worker still unpacks the last one. 4. A layer with both digests right is renamed into its place. 5. Under
the lock of the image records: one syncfs(2), then manifest, configuration, image record and name.

Interrupted anywhere, the stage goes away with the worker, and what is in place is whole.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from enum import StrEnum

from usercontainerd.base.errors import (
    Busy,
    Cancelled,
    DigestMismatch,
    InvalidFormat,
    NoSuchImage,
    SubIdsMissing,
    UsercontainerError,
)
from usercontainerd.engine.images import current_time, empty_trash, ignore_progress, start_worker
from usercontainerd.oci.digest import Digest, explain_mismatch
from usercontainerd.oci.image import MAX_CONFIGURATION, ImageConfiguration, parse_image_configuration
from usercontainerd.oci.manifest import (
    Descriptor,
    FetchedManifest,
    Index,
    Manifest,
    check_configuration_type,
    check_layer_type,
    parse_manifest,
)
from usercontainerd.oci.platform import Platform, choose_platform, plan_host_platform
from usercontainerd.store.images import ImageRecord, ImageStore, NameRecord
from usercontainerd.store.layers import LayerBlob, LayerRecord
from usercontainerd.store.layout import Store
from usercontainerd.store.locks import ObjectLock
from usercontainerd.store.stage import Stage, sweep_stages
from usercontainerd.store.worker import UnpackLimits, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images import Progress
    from usercontainerd.engine.sources import ImageSource
    from usercontainerd.oci.reference import Reference
    from usercontainerd.store.worker import Unpacking

MAX_AT_ONCE = 2  # layers: one arrives while the one before is still being unpacked


class Phase(StrEnum):
    """What a progress report is about; the item is the reference, or the digest of a blob or layer."""

    RESOLVE = "resolve"
    EXISTS = "exists"  # a layer that is here already
    WAIT = "wait"  # for another process that pulls the same layer
    DOWNLOAD = "download"
    UNPACK = "unpack"  # all bytes have come; done = total once it is unpacked
    STORE = "store"
    DONE = "done"


def is_interruption(kind: type[BaseException]) -> bool:
    """Tell whether somebody wants the pull to end, as opposed to a failure."""
    return issubclass(kind, Cancelled) or not issubclass(kind, Exception)


class PendingLayer:
    """A layer whose bytes have all been handed to the worker."""

    __slots__ = ("blob", "diff_id", "directory", "unpacking")

    def __init__(self, blob: Descriptor, diff_id: Digest, directory: str, unpacking: Unpacking) -> None:
        self.blob = blob
        self.diff_id = diff_id
        self.directory = directory
        self.unpacking = unpacking


class Pull:
    """Use as a context manager: what it holds (the source, locks, the worker) goes with the block.

    ``reference`` is what is asked for, and the full name that the image gets unless ``names`` are given (possibly
    none at all). ``worker`` is one that is starting up already; without it one is started when layers are missing.
    """

    def __init__(
        self,
        context: Context,
        source: ImageSource,
        reference: Reference,
        *,
        progress: Progress = ignore_progress,
        platform: Platform | None = None,
        limits: UnpackLimits | None = None,
        worker: Worker | None = None,
        names: Sequence[Reference] | None = None,
    ) -> None:
        self._context = context
        self._reference = reference
        self._names = (reference,) if names is None else tuple(names)
        self._progress = progress
        self._platform = platform or plan_host_platform(os.uname().machine)
        self._strict = platform is not None
        self._limits = limits or UnpackLimits()
        self._store = Store(context.paths)
        self._images = ImageStore(self._store)
        self._stack = ExitStack()
        self._worker = worker
        self._stage: Stage | None = None
        self._locks: dict[Digest, ObjectLock] = {}
        self._pending: list[PendingLayer] = []
        self._made: set[Digest] = set()
        self._documents: list[FetchedManifest] = []
        self._source = source
        self._stack.callback(source.close)

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._salvage()
        if self._worker is not None:
            # A user who interrupts need not watch the clean-up.
            self._worker.close(wait=kind is None or not is_interruption(kind))
        if (
            self._made
            and kind is not None
            and issubclass(kind, (DigestMismatch, InvalidFormat, SubIdsMissing))
        ):
            self._forget_made()
        self._stack.close()

    def _salvage(self) -> None:
        """Keep what was complete but not collected yet, so that the next pull goes on from there."""
        for pending in self._pending:
            try:
                if pending.unpacking.is_done():
                    self._finish_layer(pending)
            except UsercontainerError:
                pass  # it is a failed pull already
            finally:
                pending.unpacking.close()
        self._pending.clear()

    def run(self) -> ImageRecord:
        """Do it all; return the image with its names."""
        self._progress(Phase.RESOLVE, str(self._reference), 0, 0)
        manifest = self._resolve()
        record = self._name_present(manifest.config.digest) or self._fetch_image(manifest)
        self._progress(Phase.DONE, str(self._reference), 1, 1)
        if self._worker is not None and (left := os.listdir(self._store.trash)):
            self._worker.remove(self._store.trash, left)
        return self._images.find(record.id) or record

    # Manifest and configuration

    def _resolve(self) -> Manifest:
        """Fetch what the reference leads to, down to the manifest of our platform."""
        fetched = self._source.fetch_manifest(self._reference.wanted)
        document = parse_manifest(fetched.data, fetched.media_type, where=fetched.where)
        self._documents.append(fetched)
        if isinstance(document, Index):
            chosen = self._choose(document)
            fetched = self._source.fetch_manifest(chosen.digest)
            if len(fetched.data) != chosen.size:
                raise InvalidFormat(
                    f"the manifest {chosen.digest} has {len(fetched.data)} bytes, its index says {chosen.size}",
                    where=fetched.where,
                )
            document = parse_manifest(fetched.data, chosen.media_type, where=fetched.where)
            if isinstance(document, Index):
                raise InvalidFormat("an index leads to another index", where=fetched.where)
            self._documents.append(fetched)
        check_configuration_type(document, where=fetched.where)
        for layer in document.layers:
            check_layer_type(layer, where=fetched.where)
        return document

    def _choose(self, index: Index) -> Descriptor:
        images = [m for m in index.manifests if dict(m.annotations).get("vnd.docker.reference.type") is None]
        number = choose_platform(self._platform, [m.platform for m in images])
        if number is None and len(images) == 1 and images[0].platform is None:
            number = 0
        if number is None:
            offered = ", ".join(sorted({str(m.platform) for m in images if m.platform is not None}))
            raise NoSuchImage(
                f"there is no image for {self._platform}",
                where=str(self._reference),
                hint=f"there are {offered or 'none'}",
            )
        return images[number]

    # Layers

    def _fetch_image(self, manifest: Manifest) -> ImageRecord:
        self._store.prepare()
        sweep_stages(self._store)
        data = self._source.fetch_blob(manifest.config, limit=MAX_CONFIGURATION)
        configuration = parse_image_configuration(data, where=str(self._reference))
        self._check_platform(configuration.platform)
        if len(configuration.diff_ids) != len(manifest.layers):
            raise InvalidFormat(
                f"the manifest has {len(manifest.layers)} layers, the configuration {len(configuration.diff_ids)}",
                where=str(self._reference),
            )
        self._fetch_layers(dict(zip(configuration.diff_ids, manifest.layers, strict=True)))
        record = self._build_record(manifest, configuration)
        self._store_records(record, data)
        return record

    def _check_platform(self, platform: Platform) -> None:
        """An image without an index is taken as it is, unless another platform was asked for by name."""
        if self._strict and choose_platform(self._platform, [platform]) is None:
            raise NoSuchImage(
                f"the image is for {platform}, not for {self._platform}", where=str(self._reference)
            )

    def _build_record(self, manifest: Manifest, configuration: ImageConfiguration) -> ImageRecord:
        sizes = {}
        for diff_id in configuration.diff_ids:
            layer = self._images.layers.read(diff_id)
            if layer is None:
                raise InvalidFormat(
                    f"the layer {diff_id} has vanished from the store", where=self._store.layers
                )
            sizes[diff_id] = layer.size
        return ImageRecord(
            manifest.config.digest,
            manifest=self._documents[-1].digest,
            layers=configuration.diff_ids,
            size=sum(sizes.values()),
            created=configuration.created,
            platform=str(configuration.platform),
            pulled=current_time(),
        )

    def _fetch_layers(self, wanted: dict[Digest, Descriptor]) -> None:
        self._lock_layers(sorted(wanted))
        for diff_id, blob in wanted.items():
            if self._images.layers.has(diff_id):
                self._progress(Phase.EXISTS, diff_id, 1, 1)
                continue
            while len(self._pending) >= MAX_AT_ONCE:
                self._finish_layer(self._pending.pop(0))
            self._fetch_layer(blob, diff_id)
        while self._pending:
            self._finish_layer(self._pending.pop(0))

    def _lock_layers(self, diff_ids: list[Digest]) -> None:
        for diff_id in diff_ids:
            lock = self._images.layers.lock(diff_id, exclusive=False)
            self._stack.callback(lock.release)
            self._locks[diff_id] = lock
            self._acquire(lock, diff_id)
            if self._images.layers.has(diff_id):
                continue
            # Between shared and exclusive there is a gap in which somebody else may make it: look again.
            lock.release()
            lock.exclusive = True
            self._acquire(lock, diff_id)
            if self._images.layers.has(diff_id):
                lock.downgrade()

    def _acquire(self, lock: ObjectLock, diff_id: Digest) -> None:
        lock.wait = False
        try:
            lock.acquire()
        except Busy:
            self._progress(Phase.WAIT, diff_id, 0, 0)
            lock.wait = True
            lock.acquire()

    def _get_worker(self) -> Worker:
        if self._worker is None:
            self._worker = start_worker(self._context)
        return self._worker

    def _get_stage(self) -> Stage:
        if self._stage is None:
            self._stage = self._stack.enter_context(Stage(self._store))
            self._stage.hand_to(self._get_worker())
        return self._stage

    def _fetch_layer(self, blob: Descriptor, diff_id: Digest) -> None:
        worker, stage = self._get_worker(), self._get_stage()
        directory = stage.make_directory(diff_id.hex)
        unpacking = worker.start_unpack(f"{directory}/diff", self._limits, diff_id.algorithm)
        pending = PendingLayer(blob, diff_id, directory, unpacking)
        self._pending.append(pending)
        self._progress(Phase.DOWNLOAD, blob.digest, 0, blob.size)
        feed = Feed(unpacking)

        def report(done: int) -> None:
            self._progress(Phase.DOWNLOAD, blob.digest, done, blob.size)
            if self._pending[0].unpacking.is_done():
                self._finish_layer(self._pending.pop(0))

        self._source.copy_blob(blob, feed.write, report)
        unpacking.end_stream()
        self._progress(Phase.UNPACK, blob.digest, 0, blob.size)

    def _finish_layer(self, pending: PendingLayer) -> None:
        unpacked = pending.unpacking.finish()
        if unpacked.diff_id != pending.diff_id:
            raise explain_mismatch(
                pending.diff_id, unpacked.diff_id, what="unpacked layer", where=str(self._reference)
            )
        blob = LayerBlob(pending.blob.digest, pending.blob.size, pending.blob.media_type)
        self._images.layers.commit(
            pending.directory,
            LayerRecord(
                pending.diff_id,
                size=unpacked.size,
                entries=unpacked.entries,
                blobs=[blob],
                warnings=unpacked.warnings,
            ),
        )
        self._made.add(pending.diff_id)
        self._locks[pending.diff_id].downgrade()
        self._progress(Phase.UNPACK, pending.blob.digest, pending.blob.size, pending.blob.size)

    def _forget_made(self) -> None:
        """Take back the layers of an image that can never be completed.

        After other failures a new try uses them.
        """
        for diff_id in self._made:
            self._locks[diff_id].release()
        with self._images.lock():
            needed = {layer for image in self._images.all() for layer in image.layers}
            self._images.layers.collect(needed, among=self._made)
        empty_trash(self._context)

    # Records

    def _name_present(self, image_id: Digest) -> ImageRecord | None:
        """Give an image that is here already, and whole, the name; None if it is not."""
        if self._images.read(image_id) is None:
            return None
        with self._images.lock():
            # Looked at under the lock: nobody can remove it before it has the name.
            record = self._images.read(image_id)
            if record is None or not self._images.is_whole(record):
                return None
            self._add_names(record.id)
        return record

    def _add_names(self, image_id: Digest) -> None:
        for document in self._documents:
            self._images.blobs.add(document.data, algorithm=document.digest.algorithm)
        digests = [document.digest for document in self._documents]
        for name in self._names:
            self._images.add_name(NameRecord(str(name), image_id, digests))

    def _store_records(self, record: ImageRecord, configuration: bytes) -> None:
        """Write what makes the image one."""
        self._progress(Phase.STORE, str(self._reference), 0, 0)
        with self._images.lock():
            self._images.layers.make_durable(dict.fromkeys(record.layers))
            self._images.layers.sync()
            self._images.blobs.add(configuration, algorithm=record.id.algorithm)
            self._images.add(record)
            self._add_names(record.id)


class Feed:
    """Hands compressed bytes to the worker; if that gave up, lets the rest pass.

    A damaged blob often stops the unpacking before its digest is known to be wrong, and then the digest is
    what the user has to hear about.
    """

    def __init__(self, unpacking: Unpacking) -> None:
        self._unpacking = unpacking
        self._broken = False

    def write(self, data: bytes) -> None:
        """Pass one piece on."""
        if not self._broken:
            try:
                self._unpacking.write(data)
            except BrokenPipeError:
                self._broken = True
