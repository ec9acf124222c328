"""Use case: save images to an archive or a directory.

All that is small is read first, and all layers are held, so that nobody can remove anything meanwhile. Layers go out
in the form in which they came where that can be had (see ``layer_forms``), and if all did the manifest does so, too:
then the copy has the registry's digest. The configuration is never touched, so the image keeps its ID.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from enum import StrEnum

from usercontainerd.base.errors import InvalidArgument, UsercontainerError
from usercontainerd.base.typedjson import parse_json
from usercontainerd.engine.archives.docker import MANIFEST, build_docker_manifest
from usercontainerd.engine.archives.layouts import DIR_MANIFEST, INDEX, LAYOUT, REF_NAME, name_blob
from usercontainerd.engine.archives.members import DirectoryMembers
from usercontainerd.engine.archives.output import (
    DirectoryOutput,
    TarOutput,
    writing_directory,
    writing_file,
)
from usercontainerd.engine.images.layer_forms import LayerForms
from usercontainerd.engine.images.local import get_image, ignore_progress, open_images, start_worker
from usercontainerd.engine.images.names import find_meant_names
from usercontainerd.engine.phases import Phase
from usercontainerd.oci.conversion import convert_layer_type
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.manifest import (
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_CONFIGURATION,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from usercontainerd.engine.archives.output import Output
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.oci.digest import Digest
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord
    from usercontainerd.store.worker import Worker

OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
VERSION = "version"
DIR_VERSION = b"Directory Transport Version: 1.1\n"
LAYOUT_VERSION = b'{"imageLayoutVersion": "1.0.0"}'


class SaveFormat(StrEnum):
    """What podman-save(1) knows as ``--format``."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI_ARCHIVE = "oci-archive"
    OCI_DIR = "oci-dir"
    DOCKER_DIR = "docker-dir"

    @property
    def is_directory(self) -> bool:
        """True if it is no single file."""
        return self in (SaveFormat.OCI_DIR, SaveFormat.DOCKER_DIR)


class SavedImage:
    """An image that is going to be saved, with all of it that is small.

    ``original`` is the manifest by which it came, as bytes and parsed; None where that is not kept.
    """

    __slots__ = ("configuration", "names", "original", "record")

    def __init__(
        self,
        record: ImageRecord,
        names: Sequence[str],
        configuration: bytes,
        original: tuple[bytes, Manifest] | None,
    ) -> None:
        self.record = record
        self.names = list(names)
        self.configuration = configuration
        self.original = original

    def original_layer(self, number: int) -> Descriptor | None:
        """The descriptor of a layer in the manifest by which the image came."""
        return None if self.original is None else self.original[1].layers[number]

    def settle_manifest(self, kind: str, layers: Sequence[Descriptor]) -> bytes:
        """The original manifest if it is of that kind and has these layers, else a new one."""
        if self.original is not None:
            data, manifest = self.original
            if manifest.media_type == kind and [layer.digest for layer in manifest.layers] == [
                layer.digest for layer in layers
            ]:
                return data
        if kind == DOCKER_MANIFEST:
            return build_docker_manifest(self.configuration, layers)
        annotations = () if self.original is None else self.original[1].annotations
        return build_oci_manifest(self.configuration, layers, dict(annotations))


def save_images(
    context: Context,
    words: Sequence[str],
    *,
    path: str | None,
    kind: SaveFormat = SaveFormat.DOCKER_ARCHIVE,
    compress: bool = False,
    uncompressed: bool = False,
    stdout: int = 1,
    progress: Progress = ignore_progress,
) -> None:
    """Save the images that ``words`` name to ``path``; an archive without one goes to the descriptor ``stdout``.

    A file is replaced when the new one is complete. ``compress`` is for docker-dir, whose layers are plain
    otherwise, ``uncompressed`` for the OCI formats, whose layers are compressed otherwise. Raises ``NoSuchImage``,
    ``InvalidArgument``, ``StoreError``…
    """
    if kind.is_directory and path is None:
        raise InvalidArgument(f"{kind} is a directory, which needs a name", hint="use -o DIRECTORY")
    if kind is SaveFormat.DOCKER_DIR and len(words) > 1:
        raise InvalidArgument("a docker-dir holds one image only")
    with ExitStack() as stack:
        images = choose_images(context, words)
        hold_layers(open_images(context), images, stack)
        workers: list[Worker] = []

        def start() -> Worker:
            if not workers:
                workers.append(stack.enter_context(start_worker(context)))
            return workers[0]

        saving = Saving(LayerForms(context, start), progress, compress=compress, uncompressed=uncompressed)
        if kind is SaveFormat.OCI_DIR:
            assert path is not None  # noqa: S101
            _save_layout(saving, images, path)
        elif kind is SaveFormat.DOCKER_DIR:
            assert path is not None  # noqa: S101
            saving.write_docker_dir(stack.enter_context(writing_directory(path, VERSION)), images[0])
        else:
            tar = TarOutput(
                stack.enter_context(writing_file(path, stdout=stdout)), Store(context.paths).staging
            )
            if kind is SaveFormat.DOCKER_ARCHIVE:
                saving.write_docker_archive(tar, images)
            else:
                tar.add(LAYOUT, LAYOUT_VERSION)
                tar.add(INDEX, render_index(saving.write_images(tar, images)))
            tar.finish()


def _save_layout(saving: Saving, images: Sequence[SavedImage], path: str) -> None:
    """Make a layout, or add to one that is there."""
    if not os.path.exists(f"{path}/{LAYOUT}"):
        with writing_directory(path, LAYOUT) as output:
            output.add(LAYOUT, LAYOUT_VERSION)
            output.add(INDEX, render_index(saving.write_images(output, images)))
        return
    members = DirectoryMembers(path)
    try:
        index = parse_json(members.read(INDEX, limit=MAX_MANIFEST), INDEX, limit=MAX_MANIFEST, source=path)
    finally:
        members.close()
    present = [entry.raw for entry in index.get("manifests").elements()]
    output = DirectoryOutput(path)
    output.add(INDEX, render_index(merge_entries(present, saving.write_images(output, images))))


# What there is to save


def choose_images(context: Context, words: Sequence[str]) -> list[SavedImage]:
    """Find the images; each once, with the names by which it was asked for (none if by its ID)."""
    images = open_images(context)
    chosen: dict[Digest, SavedImage] = {}
    for word in words:
        record = get_image(context, word)
        names = find_meant_names(context, word, [name.name for name in record.names])
        image = chosen.get(record.id)
        if image is None:
            configuration = images.blobs.read(record.id)
            image = SavedImage(record, [], configuration, read_original(images, record, names))
            chosen[record.id] = image
        image.names += [name for name in names if name not in image.names]
    return list(chosen.values())


def read_original(
    images: ImageStore, record: ImageRecord, names: Sequence[str]
) -> tuple[bytes, Manifest] | None:
    """Return the manifest by which the image got its name, else that by which it came first; None without any."""
    digests = [name.digests[-1] for name in record.names if name.name in names and name.digests]
    for digest in (*digests, record.manifest):
        try:
            data = images.blobs.read(digest)
            manifest = parse_manifest(data, None)
        except UsercontainerError:
            continue
        if (
            isinstance(manifest, Manifest)
            and manifest.config.digest == record.id
            and len(manifest.layers) == len(record.layers)
        ):
            return data, manifest
    return None


def hold_layers(images: ImageStore, saved: Iterable[SavedImage], stack: ExitStack) -> None:
    """Keep all layers from being removed for as long as ``stack`` lasts."""
    for diff_id in sorted({layer for image in saved for layer in image.record.layers}):
        lock = images.layers.lock(diff_id, exclusive=False)
        lock.acquire()
        stack.callback(lock.release)


# Writing it


class Saving:
    """Writes images to an output; a layer that several have, once."""

    def __init__(self, forms: LayerForms, progress: Progress, *, compress: bool, uncompressed: bool) -> None:
        self._forms = forms
        self._progress = progress
        self._compress = compress
        self._uncompressed = uncompressed
        self._written: dict[Digest, Descriptor] = {}

    def write_docker_archive(self, output: Output, images: Sequence[SavedImage]) -> None:
        """As docker has written it since 1.10: layers, configurations, manifest.json."""
        elements = []
        for image in images:
            layers = []
            for diff_id in image.record.layers:
                layers.append(f"{diff_id.hex}.tar")
                self._write_plain(output, diff_id, layers[-1], DOCKER_TAR)
            config = f"{image.record.id.hex}.json"
            output.add(config, image.configuration)
            elements.append({"Config": config, "RepoTags": image.names, "Layers": layers})
        output.add(MANIFEST, json.dumps(elements, separators=(",", ":")).encode())

    def write_docker_dir(self, output: Output, image: SavedImage) -> None:
        """As skopeo's ``dir:`` has it, with a manifest of Docker's schema 2."""
        output.add(VERSION, DIR_VERSION)
        layers = []
        for number, diff_id in enumerate(image.record.layers):
            if self._compress:
                layer = self._write_compressed(
                    output, diff_id, image.original_layer(number), lambda blob: blob.digest.hex, docker=True
                )
            else:
                layer = self._write_plain(output, diff_id, diff_id.hex, DOCKER_TAR)
            layers.append(layer)
        output.add(image.record.id.hex, image.configuration)
        output.add(DIR_MANIFEST, image.settle_manifest(DOCKER_MANIFEST, layers))

    def write_images(self, output: Output, images: Sequence[SavedImage]) -> list[dict[str, Any]]:
        """Write the blobs of an OCI layout; return the entries of its index, one for each name."""
        entries = []
        for image in images:
            layers = [
                self._write_layer(output, diff_id, image.original_layer(number))
                for number, diff_id in enumerate(image.record.layers)
            ]
            manifest = image.settle_manifest(OCI_MANIFEST, layers)
            digest = compute_digest(manifest)
            output.add(name_blob(image.record.id), image.configuration)
            output.add(name_blob(digest), manifest)
            entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(manifest)}
            entries += [{**entry, "annotations": {REF_NAME: name}} for name in image.names] or [entry]
        return entries

    def _write_layer(self, output: Output, diff_id: Digest, original: Descriptor | None) -> Descriptor:
        came_plain = original is not None and original.digest == diff_id and original.media_type == OCI_TAR
        if self._uncompressed or came_plain:
            return self._write_plain(output, diff_id, name_blob(diff_id), OCI_TAR)
        return self._write_compressed(output, diff_id, original, lambda blob: name_blob(blob.digest))

    def _write_plain(self, output: Output, diff_id: Digest, name: str, media_type: str) -> Descriptor:
        size = self._forms.measure_tar(diff_id)
        output.add_stream(name, size, self._reporting(diff_id, size, self._forms.read_tar(diff_id)))
        return Descriptor(media_type, diff_id, size)

    def _write_compressed(
        self,
        output: Output,
        diff_id: Digest,
        original: Descriptor | None,
        name: Callable[[Descriptor], str],
        *,
        docker: bool = False,
    ) -> Descriptor:
        if (done := self._written.get(diff_id)) is not None:
            return done
        kept = self._forms.find_kept(diff_id, original)
        if kept is not None:
            pieces = self._reporting(kept.digest, kept.size, self._forms.read_kept(kept))
            output.add_stream(name(kept), kept.size, pieces)
            blob = Descriptor(convert_layer_type(kept.media_type, docker=docker), kept.digest, kept.size)
        else:
            self._progress(Phase.COMPRESS, diff_id, 0, 0)
            blob = output.add_made(lambda write: self._forms.compress(diff_id, write, docker=docker), name)
        self._written[diff_id] = blob
        return blob

    def _reporting(self, item: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        done = 0
        for piece in pieces:
            self._progress(Phase.SAVE, item, done, size)
            yield piece
            done += len(piece)
        self._progress(Phase.SAVE, item, done, size)


def build_oci_manifest(
    configuration: bytes, layers: Sequence[Descriptor], annotations: dict[str, str] | None = None
) -> bytes:
    """A manifest of these layers. Pure."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIGURATION,
            "digest": compute_digest(configuration),
            "size": len(configuration),
        },
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers
        ],
    }
    if annotations:
        document["annotations"] = annotations
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def render_index(entries: Sequence[Any]) -> bytes:
    """The content of index.json. Pure."""
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def merge_entries(present: Sequence[Any], new: Sequence[dict[str, Any]]) -> list[Any]:
    """The entries of a layout after adding to it: a name that is there leads to the new image from then on. Pure."""
    names = {entry.get("annotations", {}).get(REF_NAME) for entry in new} - {None}

    def stays(entry: Any) -> bool:
        annotations = entry.get("annotations") if isinstance(entry, dict) else None
        name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
        return name not in names and entry not in new

    kept = [entry for entry in present if stays(entry)]
    known = {entry.get("digest") for entry in kept if isinstance(entry, dict)}
    return [*kept, *(entry for entry in new if entry.get("annotations") or entry["digest"] not in known)]
