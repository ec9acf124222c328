"""The layers of one pull: who makes which, several at once, each put into its place when it is whole.

Layers are locked so that processes share the work and never wait for each other in a ring: what is free is taken
exclusively without waiting and fetched; only when nothing is held exclusively any more, what others were making is
waited for. If they failed, it is tried here.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from queue import Empty, SimpleQueue

from usercontainerd.base.errors import Busy, DigestMismatch, StoreError, UsercontainerError
from usercontainerd.base.sizes import format_size
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.transfers.layer_transfer import Message, Transfer, find_resumable
from usercontainerd.oci.digest import explain_mismatch
from usercontainerd.store.layers import LayerBlob, LayerRecord
from usercontainerd.store.partial import measure_partial, open_partial, sweep_partials
from usercontainerd.store.stage import Stage, sweep_stages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usercontainerd.engine.images.local import Progress
    from usercontainerd.engine.transfers.sources import ImageSource
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.layout import Store
    from usercontainerd.store.locks import ObjectLock
    from usercontainerd.store.worker import Unpacked, UnpackLimits, Worker

_PATIENCE = 1.0  # seconds that a failed pull waits for its threads
_POLL = 0.1  # seconds between two looks whether another process is done


class LayerFetcher:
    """Fetches the layers of one image; holds their locks until ``close``.

    ``get_worker`` starts the worker when it is first needed. With ``keep_blobs`` the compressed layers are kept too.
    ``where`` is the image, for messages.
    """

    def __init__(
        self,
        images: ImageStore,
        source: ImageSource,
        *,
        get_worker: Callable[[], Worker],
        progress: Progress,
        limits: UnpackLimits,
        at_once: int,
        keep_blobs: bool = False,
        where: str,
    ) -> None:
        self._images = images
        self._source = source
        self._get_worker = get_worker
        self._progress = progress
        self._limits = limits
        # What gives one blob at a time gives the next while the worker still unpacks the last one.
        self._downloads = at_once if getattr(source, "parallel", False) else 1
        self._unpackings = max(self._downloads, 2)
        self._keep_blobs = keep_blobs
        self._where = where
        self._count = 0
        self._stack = ExitStack()
        self._stage: Stage | None = None
        self._locks: dict[Digest, ObjectLock] = {}
        self._running: list[Transfer] = []
        self._sent: set[Transfer] = set()
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._wanted: list[Descriptor] = []
        self._linked: dict[Digest, tuple[Transfer, Unpacked]] = {}
        self._owed: list[Descriptor] = []
        self.made: set[Digest] = set()

    def fetch(self, wanted: dict[Digest, Descriptor]) -> None:
        """Have all layers in the store, locked shared."""
        self._wanted = list(wanted.values())
        sweep_stages(self._images.store)
        sweep_partials(self._images.store, [blob.digest for blob in wanted.values()])
        waiting = sorted(wanted)
        while waiting:
            busy = [diff_id for diff_id in waiting if self._is_busy(diff_id)]
            missing = {}
            for diff_id, blob in wanted.items():
                if diff_id in waiting and diff_id not in busy:
                    if self._locks[diff_id].exclusive:
                        missing[diff_id] = blob
                    else:
                        self._progress(Phase.EXISTS, diff_id, 1, 1)
            self._fetch_missing(missing)
            waiting = busy + self._complete_linked(list(wanted))
            self._store_owed()
            for diff_id in busy:
                self._wait_for(diff_id)
            waiting = [d for d in waiting if d not in self._locks]
        self._compare_linked(list(wanted))

    # Locks

    def _is_busy(self, diff_id: Digest) -> bool:
        """Take the layer's lock: shared if it is here, else exclusively; True if somebody else is at it."""
        try:
            lock = self._acquire(diff_id, exclusive=False)
            if self._images.layers.has(diff_id):
                return False
            lock.release()
            lock = self._acquire(diff_id, exclusive=True)
        except Busy:
            self._locks.pop(diff_id, None)
            return True
        # Between shared and exclusive there is a gap in which somebody else may have made it.
        if self._images.layers.has(diff_id):
            lock.downgrade()
        return False

    def _wait_for(self, diff_id: Digest) -> None:
        while True:
            # Again and again: somebody may have to be told that this is no standstill.
            self._progress(Phase.WAIT, diff_id, 0, 0)
            try:
                lock = self._acquire(diff_id, exclusive=False)
                break
            except Busy:
                time.sleep(_POLL)
        if self._images.layers.has(diff_id):
            self._progress(Phase.EXISTS, diff_id, 1, 1)
        else:
            lock.release()
            del self._locks[diff_id]

    def _acquire(self, diff_id: Digest, *, exclusive: bool) -> ObjectLock:
        lock = self._images.layers.lock(diff_id, exclusive=exclusive, wait=False)
        lock.acquire()
        self._locks[diff_id] = lock
        return lock

    # Fetching

    def _fetch_missing(self, wanted: dict[Digest, Descriptor]) -> None:
        check_space(self._images.store, wanted.values(), where=self._where)
        for blob in wanted.values():
            self._progress(
                Phase.DOWNLOAD, blob.digest, 0, blob.size
            )  # so that all is known from the beginning
        left = list(wanted.items())
        while left or self._running:
            started = []
            while left and self._has_room():
                diff_id, blob = left.pop(0)
                started.append(self._start(blob, diff_id))
            # The connections are being made while the worker starts up.
            for transfer in started:
                self._supply(transfer)
            self._handle(self._messages.get())

    def _has_room(self) -> bool:
        downloading = len(self._running) - len(self._sent)
        return downloading < self._downloads and len(self._running) < self._unpackings

    def _start(self, blob: Descriptor, diff_id: Digest) -> Transfer:
        # What can only be read from the beginning, and anew at no cost, is not written down as it comes.
        useful = self._keep_blobs or find_resumable(self._source) is not None
        partial = open_partial(self._images.store, blob.digest) if useful else None
        transfer = Transfer(self._source, blob, diff_id, self._messages, partial=partial)
        self._running.append(transfer)
        return transfer

    def _supply(self, transfer: Transfer) -> None:
        worker = self._get_worker()
        if self._stage is None:
            self._stage = self._stack.enter_context(Stage(self._images.store))
            self._stage.hand_to(worker)
        self._count += 1
        directory = self._stage.make_directory(f"{self._count}-{transfer.diff_id.hex[:16]}")
        unpacking = worker.start_unpack(
            f"{directory}/diff", self._limits, transfer.diff_id.algorithm, defer_links=True
        )
        transfer.supply(directory, unpacking)

    def _handle(self, message: Message) -> None:
        transfer, blob = message.transfer, message.transfer.blob
        if isinstance(message.error, DigestMismatch) and transfer.resumed:
            # What an earlier pull has left was damaged. It is gone now.
            transfer.join(0)
            self._running.remove(transfer)
            self._supply(self._start(blob, transfer.diff_id))
            return
        if message.error is not None:
            if isinstance(message.error, StoreError) and message.error.where is None:
                message.error.where = self._images.store.root  # the unpacking knows paths of the layer only
            raise message.error
        if message.unpacked is not None:
            self._running.remove(transfer)
            self._sent.discard(transfer)
            if message.unpacked.links:
                self._linked[transfer.diff_id] = (transfer, message.unpacked)
            else:
                self._commit(transfer, message.unpacked)
        elif message.sent:
            self._sent.add(transfer)
            self._progress(Phase.UNPACK, blob.digest, 0, blob.size)
        else:
            self._progress(Phase.DOWNLOAD, blob.digest, message.done, blob.size)

    def _commit(self, transfer: Transfer, unpacked: Unpacked) -> None:
        diff_id, blob = transfer.diff_id, transfer.blob
        if unpacked.diff_id != diff_id:
            if transfer.partial is not None:
                transfer.partial.discard()
            raise explain_mismatch(diff_id, unpacked.diff_id, what="unpacked layer", where=self._where)
        self._images.layers.commit(
            transfer.directory,
            LayerRecord(
                diff_id,
                size=unpacked.size,
                entries=unpacked.entries,
                blobs=[LayerBlob(blob.digest, blob.size, blob.media_type)],
                warnings=unpacked.warnings,
            ),
        )
        self.made.add(diff_id)
        self._locks[diff_id].downgrade()
        if transfer.partial is None:
            if unpacked.needs_blob:
                self._owed.append(blob)
        elif self._keep_blobs or unpacked.needs_blob:
            transfer.partial.keep(self._images.store.blob(blob.digest))
        else:
            transfer.partial.discard()
        self._progress(Phase.UNPACK, blob.digest, blob.size, blob.size)

    def _store_owed(self) -> None:
        """Store blobs without which their layers could not be given away, and which were not written as they came."""
        while self._owed:
            blob = self._owed.pop()
            partial = open_partial(self._images.store, blob.digest)
            if partial is None:
                continue  # another process has it
            try:
                partial.restart()
                self._source.copy_blob(blob, partial.append)
                partial.keep(self._images.store.blob(blob.digest))
            finally:
                partial.close()

    # Layers with hard links to files of those below

    def _complete_linked(self, order: list[Digest]) -> list[Digest]:
        """Complete and place what waited for lower layers; ``order`` is that of the image, lowest first.

        Where another process is still making one of those, the layer is given up, so that nothing is held while
        waiting: these are returned.
        """
        given_up = []
        for diff_id in [d for d in order if d in self._linked]:
            transfer, unpacked = self._linked.pop(diff_id)
            lowers = order[: order.index(diff_id)]
            if all(lower in self._locks for lower in lowers):
                self._resolve_links(transfer.directory, lowers)
                self._commit(transfer, unpacked)
                continue
            if transfer.partial is not None:
                transfer.partial.discard()
            self._locks.pop(diff_id).release()
            given_up.append(diff_id)
        return given_up

    def _compare_linked(self, order: list[Digest]) -> None:
        """See to it that linked layers that were here already have been completed with what is below them here."""
        for number, diff_id in enumerate(order):
            if diff_id not in self.made and self._images.layers.has_links(diff_id):
                self._resolve_links(self._images.store.layer(diff_id), order[:number])

    def _resolve_links(self, directory: str, lowers: list[Digest]) -> None:
        directories = [self._images.layers.directory(lower) for lower in reversed(lowers)]
        try:
            self._get_worker().resolve_links(directory, directories)
        except UsercontainerError as error:
            error.where = error.where or self._where
            raise

    # The end

    def stop(self) -> None:
        """Stop what is running, but keep what was complete already: the next pull goes on from there."""
        for transfer in self._running:
            transfer.stop()
        try:
            while True:
                message = self._messages.get_nowait()
                if message.unpacked is not None and not message.unpacked.links:
                    self._commit(message.transfer, message.unpacked)
        except (Empty, UsercontainerError):
            pass  # it is a failed pull already

    def join(self, *, wait: bool) -> None:
        """Wait a moment for the threads; those that hang in a silent line are left behind."""
        for transfer in self._running:
            transfer.join(_PATIENCE if wait else 0)

    def forget_made(self) -> None:
        """Take back what came of an image that can never be completed. After other failures a new try uses it."""
        for blob in self._wanted:
            if measure_partial(self._images.store, blob.digest):
                partial = open_partial(self._images.store, blob.digest)
                if partial is not None:
                    partial.discard()
        for diff_id in self.made:
            self._locks[diff_id].release()
        with self._images.lock():
            needed = {layer for image in self._images.all() for layer in image.layers}
            self._images.layers.collect(needed, among=self.made)

    def close(self) -> None:
        """Give back the locks and the stage."""
        for lock in self._locks.values():
            lock.release()
        self._stack.close()


def check_space(store: Store, blobs: Iterable[Descriptor], *, where: str) -> None:
    """Raise ``StoreError`` if the disk cannot even take the compressed size of all ``blobs``."""
    needed = sum(max(0, blob.size - measure_partial(store, blob.digest)) for blob in blobs)
    status = os.statvfs(store.root)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise StoreError(
            f"the layers of {where} take more than {format_size(needed)}, only {format_size(free)} are free",
            where=store.root,
            hint="free some space on that file system, or remove unused images",
        )
