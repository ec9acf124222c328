"""One pull of one image from any source: the order of its steps.

1. Fetch the manifest, through an index if need be, and the configuration; all is checked by digest, counted and
measured (``resolution``), and what the caller wants to know of it is asked. 2. Lock the layers and stream those that
are missing to the worker, several at once (``layer_fetching``): it inflates, hashes and unpacks them in the user
namespace, in a stage, while the compressed bytes are hashed here. Another process that pulls the same is waited for,
and its layers are used. A layer with both digests right is renamed into its place. 3. Under the lock of the image
records: one syncfs(2), then manifest, configuration, image record and name.

Interrupted anywhere, the stage goes away with the worker, and what is in place is whole.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import Cancelled, DigestMismatch, InvalidFormat, SubIdsMissing
from usercontainerd.engine.images.local import current_time, empty_trash, ignore_progress, start_worker
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.transfers.resolution import ResolvedImage, fetch_configuration, resolve_image
from usercontainerd.oci.platform import Platform, plan_host_platform
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layout import Store
from usercontainerd.store.records import ImageRecord, NameRecord
from usercontainerd.store.worker import UnpackLimits, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.engine.transfers.layer_fetching import LayerFetcher
    from usercontainerd.engine.transfers.sources import ImageSource
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.image import ImageConfiguration
    from usercontainerd.oci.reference import Reference

# After these the image can never be completed from what was fetched.
_HOPELESS = (DigestMismatch, InvalidFormat, SubIdsMissing)


def is_interruption(kind: type[BaseException]) -> bool:
    """Tell whether somebody wants the pull to end, as opposed to a failure."""
    return issubclass(kind, Cancelled) or not issubclass(kind, Exception)


class Pull:
    """Use as a context manager: what it holds (the source, locks, the worker) goes with the block.

    ``reference`` is what is asked for, and the full name that the image gets unless ``names`` are given (possibly
    none at all). ``worker`` is one that is starting up already; without it one is started when layers are missing.
    ``approve`` sees what the reference leads to before anything of it is fetched or named, and raises to refuse it:
    usually by the signature policy (``admission``).
    """

    def __init__(
        self,
        context: Context,
        source: ImageSource,
        reference: Reference,
        *,
        approve: Callable[[ResolvedImage], object],
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
        self._platform = platform
        self._approve = approve
        self._limits = limits or UnpackLimits()
        self._store = Store(context.paths)
        self._images = ImageStore(self._store)
        self._worker = worker
        self._fetcher: LayerFetcher | None = None
        self._source = source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A user who interrupts need not watch the clean-up.
        wait = kind is None or not is_interruption(kind)
        if self._fetcher is not None:
            self._fetcher.stop()
        self._source.close()  # ends what waits for bytes
        if self._worker is not None:
            self._worker.close(wait=wait)
        if self._fetcher is not None:
            self._fetcher.join(wait=wait)
            if kind is not None and issubclass(kind, _HOPELESS):
                self._fetcher.forget_made()
                empty_trash(self._context)
            self._fetcher.close()

    def run(self) -> ImageRecord:
        """Do it all; return the image with its names."""
        self._progress(Phase.RESOLVE, str(self._reference), 0, 0)
        platform = self._platform or plan_host_platform(os.uname().machine)
        image = resolve_image(self._source, self._reference, platform)
        self._approve(image)
        record = self._name_present(image) or self._fetch_image(image)
        self._progress(Phase.DONE, str(self._reference), 1, 1)
        if self._worker is not None and (left := os.listdir(self._store.trash)):
            self._worker.remove(self._store.trash, left)
        return self._images.find(record.id) or record

    def _fetch_image(self, image: ResolvedImage) -> ImageRecord:
        # Only who fetches layers pays for threads and the reading of the configuration.
        from usercontainerd.engine.configuration import read_configuration
        from usercontainerd.engine.transfers.layer_fetching import LayerFetcher

        data, configuration = fetch_configuration(self._source, image, platform=self._platform)
        settings = read_configuration(self._context)
        self._store.prepare()
        self._fetcher = LayerFetcher(
            self._images,
            self._source,
            get_worker=self._get_worker,
            progress=self._progress,
            limits=self._limits,
            at_once=settings.max_downloads,
            keep_blobs=settings.keep_blobs,
            where=str(self._reference),
        )
        describe = getattr(self._source, "describe_layers", None)
        layers = image.manifest.layers if describe is None else describe(configuration.diff_ids)
        self._fetcher.fetch(dict(zip(configuration.diff_ids, layers, strict=True)))
        record = self._build_record(image, configuration)
        self._store_records(record, image, data)
        return record

    def _get_worker(self) -> Worker:
        if self._worker is None:
            self._worker = start_worker(self._context)
        return self._worker

    # Records

    def _build_record(self, image: ResolvedImage, configuration: ImageConfiguration) -> ImageRecord:
        sizes = {}
        for diff_id in configuration.diff_ids:
            layer = self._images.layers.read(diff_id)
            if layer is None:
                raise InvalidFormat(
                    f"the layer {diff_id} has vanished from the store", where=self._store.layers
                )
            sizes[diff_id] = layer.size
        return ImageRecord(
            image.manifest.config.digest,
            manifest=image.digests[-1],
            layers=configuration.diff_ids,
            size=sum(sizes.values()),
            created=configuration.created,
            platform=str(configuration.platform),
            pulled=current_time(),
        )

    def _name_present(self, image: ResolvedImage) -> ImageRecord | None:
        """Give an image that is here already, and whole, the name; None if it is not."""
        image_id = image.manifest.config.digest
        if self._images.read(image_id) is None:
            return None
        with self._images.lock():
            # Looked at under the lock: nobody can remove it before it has the name.
            record = self._images.read(image_id)
            if record is None or not self._images.is_whole(record):
                return None
            # A layer that was missing may have been brought by another image, whose pull was killed since.
            self._images.layers.make_durable(dict.fromkeys(record.layers))
            self._add_names(record.id, image)
        return record

    def _add_names(self, image_id: Digest, image: ResolvedImage) -> None:
        for document in image.documents:
            self._images.blobs.add(document.data, algorithm=document.digest.algorithm)
        for name in self._names:
            self._images.add_name(NameRecord(str(name), image_id, image.digests))

    def _store_records(self, record: ImageRecord, image: ResolvedImage, configuration: bytes) -> None:
        """Write what makes the image one."""
        self._progress(Phase.STORE, str(self._reference), 0, 0)
        with self._images.lock():
            self._images.layers.make_durable(dict.fromkeys(record.layers))
            self._images.layers.sync()
            self._images.blobs.add(configuration, algorithm=record.id.algorithm)
            self._images.add(record)
            self._add_names(record.id, image)
