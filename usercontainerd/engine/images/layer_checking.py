"""Whether the files of layers are still what was unpacked.

Two looks at each layer: which of its files were touched since (quick, reads no content), and whether its exact tar
archive still comes out, with the digest that is its name. The second decides; in a quick check it is only taken where
the first shows something. Nothing is locked but the one layer that is looked at.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import Busy, HostError, StoreError, UsercontainerError
from usercontainerd.engine.images.layer_streams import open_layer_tar
from usercontainerd.engine.images.local import start_worker
from usercontainerd.oci.digest import Digest
from usercontainerd.store.findings import Finding, Severity
from usercontainerd.store.tar import printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.engine.context import Context
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.worker import Worker

_PIECE = 1024 * 1024
_SHOWN = 3  # paths in one finding

Identity = tuple[int, int, int]


class LayerReport:
    """``changed`` are layers that are not what they were, with the reason; ``notes`` are what cannot be decided."""

    def __init__(self) -> None:
        self.notes: list[Finding] = []
        self._changed: dict[Digest, tuple[str, Identity]] = {}

    def add_changed(self, diff_id: Digest, reason: str, identity: Identity) -> None:
        """Note that a layer is damaged; ``identity`` is that of the directory that was looked at."""
        self._changed[diff_id] = (reason, identity)

    def list_changed(self, images: ImageStore) -> dict[Digest, str]:
        """The damaged layers, but for those that somebody has replaced since."""
        return {
            diff_id: reason
            for diff_id, (reason, identity) in self._changed.items()
            if identify(images.layers.directory(diff_id)) == identity
        }


def identify(directory: str) -> Identity | None:
    """What tells a directory from another that takes its place; None if there is none."""
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def examine_layers(
    context: Context,
    images: ImageStore,
    *,
    quick: bool,
    report: Callable[[str, int, int], None],
) -> LayerReport:
    """Look at the files of all layers that count as whole. ``report`` is told each layer, its number and how many."""
    result = LayerReport()
    diff_ids = [diff_id for diff_id in sorted(images.layers.all()) if images.layers.has(diff_id)]
    if not diff_ids:
        return result
    try:
        with start_worker(context) as worker:
            worker.wait_ready()
            examiner = _Examiner(context, images, worker, quick, result)
            for number, diff_id in enumerate(diff_ids):
                report(diff_id.hex[:12], number, len(diff_ids))
                try:
                    with images.layers.lock(diff_id, exclusive=False, wait=False):
                        if images.layers.has(diff_id):
                            examiner.examine(diff_id)
                except Busy:
                    continue  # it is being made just now
                except (StoreError, HostError) as error:
                    result.notes.append(_explain_unknown(images, diff_id, str(error)))
    except UsercontainerError as error:
        result.notes.append(
            Finding(
                "layers",
                Severity.NOTE,
                f"the files of layers cannot be looked at: {error}",
                images.store.layers,
            )
        )
    return result


class _Examiner:
    """Looks at single layers; the caller holds their locks."""

    def __init__(
        self, context: Context, images: ImageStore, worker: Worker, quick: bool, result: LayerReport
    ) -> None:
        self._context = context
        self._images = images
        self._worker = worker
        self._quick = quick
        self._result = result

    def examine(self, diff_id: Digest) -> None:
        """Report the layer if it is not what it was."""
        directory = self._images.layers.directory(diff_id)
        identity = identify(directory)
        if identity is None:
            return  # gone; the check of the records tells
        touched = _list_touched(self._images, self._worker, diff_id)
        has_recipe = self._images.layers.has_recipe(diff_id)
        if has_recipe and (touched or not self._quick):
            reason = _find_change(self._context, self._worker, diff_id)
            if reason:
                self._result.add_changed(diff_id, reason, identity)
                return
        if touched:
            places = ", ".join(printable_name(path) for path in touched[:_SHOWN])
            more = ", …" if len(touched) > _SHOWN else ""
            what = (
                "contents are right, modes and owners may not be" if has_recipe else "it cannot be compared"
            )
            self._result.notes.append(
                Finding(
                    "touched",
                    Severity.NOTE,
                    f"the layer {diff_id.hex[:12]} was touched after it was unpacked ({places}{more}): {what}",
                    self._images.store.layer(diff_id),
                    repair="none if you restored a backup; else remove its images and pull them again",
                )
            )


def _list_touched(images: ImageStore, worker: Worker, diff_id: Digest) -> list[bytes]:
    """Return paths of what is younger than the layer itself; not more than can be shown."""
    path = images.store.layer(diff_id)
    try:
        made = os.stat(f"{path}/recipe").st_mtime_ns
    except FileNotFoundError:
        made = os.stat(f"{path}/layer.json").st_mtime_ns
    touched: list[bytes] = []
    with worker.start_survey(images.layers.directory(diff_id), made) as paths:
        for each in paths:
            touched.append(each)
            if len(touched) > _SHOWN:
                break
    return touched


def _find_change(context: Context, worker: Worker, diff_id: Digest) -> str:
    """Read the layer's whole archive; return what is wrong with it, or ``""``."""
    try:
        with open_layer_tar(context, worker, diff_id) as tar:
            while tar.read(_PIECE):
                pass
    except StoreError as error:
        return error.what
    return ""


def _explain_unknown(images: ImageStore, diff_id: Digest, why: str) -> Finding:
    what = f"the layer {diff_id.hex[:12]} cannot be looked at: {why}"
    return Finding("layers", Severity.NOTE, what, images.store.layer(diff_id))
