"""The layers of one push: each is found at the registry, mounted from another repository, sent as it was kept, or made.

Several are on their way at once, each in a thread of its own. Which form of a layer is offered decides whether the
image keeps its digest; so the form that it was pulled in is preferred wherever it can be had, and only what cannot be
had is made anew from the files: always to the same bytes, so that a second push finds them there.
"""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack

from usercontainerd.base.errors import Cancelled, StoreError
from usercontainerd.engine.archives.input import open_spool
from usercontainerd.engine.images.layer_forms import LayerForms
from usercontainerd.engine.images.layer_streams import compress_layer
from usercontainerd.engine.images.local import start_worker
from usercontainerd.engine.images.made_forms import MadeForms
from usercontainerd.engine.phases import Phase
from usercontainerd.oci.conversion import ManifestForm, find_compression
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.store.compress import Compression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO, Self

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.registry.upload import Uploader
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.worker import Worker

AT_ONCE = 3
_MOUNT_TRIES = 3  # repositories that a blob is tried to be mounted from


class LayerWishes:
    """How layers are to be compressed: ``compression`` None for as they were, ``force`` for always anew."""

    __slots__ = ("compression", "force", "form", "level")

    def __init__(
        self,
        form: ManifestForm,
        compression: Compression | None = None,
        level: int | None = None,
        *,
        force: bool = False,
    ) -> None:
        self.form = form
        self.compression = compression
        self.level = level
        self.force = force

    def accepts(self, blob: Descriptor) -> bool:
        """Tell whether a form of a layer that there is may be used as it is."""
        found = find_compression(blob.media_type)
        if self.force or (self.form is ManifestForm.DOCKER and found == "zstd"):
            return False
        return self.compression is None or found == self.compression

    def choose(self, original: Descriptor) -> Compression:
        """How a layer is compressed that must be made anew: as it was, if that is possible."""
        if self.compression is not None:
            return self.compression
        found = find_compression(original.media_type)
        if found is None or (found == "zstd" and self.form is ManifestForm.DOCKER):
            return Compression.GZIP
        return Compression(found)


class LayerPusher:
    """Brings layers to one repository; use it as a context manager: the worker that makes archives goes with it.

    ``sources`` are repositories of the same registry that may have a blob.
    """

    def __init__(
        self,
        context: Context,
        images: ImageStore,
        uploader: Uploader,
        wishes: LayerWishes,
        *,
        sources: Mapping[Digest, Sequence[str]],
        progress: Progress,
    ) -> None:
        self._context = context
        self._images = images
        self._uploader = uploader
        self._wishes = wishes
        self._sources = sources
        self._progress = progress
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._forms = LayerForms(context, self._get_worker)
        self._made = MadeForms(context.paths)
        self._stack = ExitStack()
        self._worker: Worker | None = None
        self._stopped = False

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, trace)

    def push_all(
        self, layers: Mapping[Digest, Descriptor], abort: Callable[[], object]
    ) -> dict[Digest, Descriptor]:
        """Bring all layers (by diffID, with the descriptor of the manifest) there; return what each is there.

        If one fails, or the caller is interrupted, ``abort`` ends the transfers of the others.
        """
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as executor:
            futures = {
                diff_id: executor.submit(self._push, diff_id, original)
                for diff_id, original in layers.items()
            }
            try:
                done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
                failures = [future.exception() for future in done]
                failure = next((each for each in failures if each is not None), None)
                if failure is not None:
                    raise failure
            except BaseException:
                self._stopped = True
                for future in futures.values():
                    future.cancel()
                abort()
                raise
            return {diff_id: future.result() for diff_id, future in futures.items()}

    def push_small(self, blob: Descriptor, data: bytes) -> None:
        """Bring a blob that is in memory there."""
        if not self._find_there([blob]):
            self._send(blob, io.BytesIO(data))

    def _push(self, diff_id: Digest, original: Descriptor) -> Descriptor:
        if self._stopped:
            raise Cancelled("the push was stopped")
        forms = [form for form in self._list_forms(diff_id, original) if self._wishes.accepts(form)]
        wishes = self._wishes
        made = self._made.find(diff_id, wishes.choose(original), wishes.level, wishes.form)
        there = self._find_there(forms if made is None else [*forms, made])
        if there is not None:
            return there
        for form in forms:
            if self._send_kept(form):
                return form
        return self._make(diff_id, original)

    def _list_forms(self, diff_id: Digest, original: Descriptor) -> list[Descriptor]:
        """The blobs in which a layer is known to exist, the manifest's first."""
        record = self._images.layers.read(diff_id)
        forms = {original.digest: original}
        for blob in record.blobs if record is not None else ():
            forms.setdefault(blob.digest, Descriptor(blob.media_type, blob.digest, blob.size))
        return list(forms.values())

    def _find_there(self, forms: Sequence[Descriptor]) -> Descriptor | None:
        """The first form that the repository has, or can have from another one."""
        for form in forms:
            if self._uploader.has_blob(form):
                self._report(Phase.PRESENT, form.digest, 1, 1)
                return form
        for form in forms:
            for source in self._sources.get(form.digest, ())[:_MOUNT_TRIES]:
                if self._uploader.mount_blob(form, source):
                    self._report(Phase.MOUNT, form.digest, 1, 1)
                    return form
        return None

    def _send_kept(self, form: Descriptor) -> bool:
        """Send the compressed blob, if it was kept and is whole by its size (the registry checks its digest)."""
        try:
            file = open(self._images.store.blob(form.digest), "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return False
        with file:
            if os.fstat(file.fileno()).st_size != form.size:
                return False
            self._send(form, file)
        return True

    def _make(self, diff_id: Digest, original: Descriptor) -> Descriptor:
        """Make the layer's archive from its files, compress it into a file without a name, and send that."""
        wishes = self._wishes
        compression = wishes.choose(original)
        record = self._images.layers.read(diff_id)
        total = record.size if record is not None else 0
        with (
            open_spool(self._images.store.staging) as (file, spool),
            self._forms.open_tar(diff_id) as tar,
        ):

            def write(data: bytes) -> None:
                if self._stopped:
                    raise Cancelled("the push was stopped")
                spool(data)
                self._report(Phase.COMPRESS, diff_id, min(tar.size, total), total)

            made = compress_layer(
                tar,
                write,
                compression=compression,
                level=wishes.level,
                docker=wishes.form is ManifestForm.DOCKER,
            )
            self._made.remember(diff_id, compression, wishes.level, wishes.form, made=made)
            if made.digest == original.digest:
                made = original
            if self._find_there([made]) is None:
                self._send(made, file)
        return made

    def _get_worker(self) -> Worker:
        with self._starting:
            if self._worker is None:
                self._images.store.prepare()
                self._worker = self._stack.enter_context(start_worker(self._context))
                self._worker.wait_ready()
            return self._worker

    def _send(self, blob: Descriptor, file: BinaryIO) -> None:
        self._report(Phase.UPLOAD, blob.digest, 0, blob.size)
        self._uploader.put_blob(
            blob, file, lambda done: self._report(Phase.UPLOAD, blob.digest, done, blob.size)
        )

    def _report(self, phase: Phase, item: str, done: int, total: int) -> None:
        with self._lock:
            self._progress(phase, item, done, total)


def check_layers(images: ImageStore, layers: Sequence[Digest]) -> None:
    """Raise ``StoreError`` if a layer is missing: better before half of an image was sent."""
    for diff_id in layers:
        if not images.layers.has(diff_id):
            raise StoreError(
                "a layer of the image is not in the store, or not whole",
                where=f"layer {diff_id}",
                hint="pull the image again",
            )
