"""Use case: an image of what a container has become: its image, and its writable layer as one layer more.

Volumes and other mounts are not part of it. A container that runs stands still while its files are read, and goes on
whatever happens. The layer is written to a file without a name first: only then it is known by its digest.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, nullcontext

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.archives.docker import build_docker_manifest
from usercontainerd.engine.archives.importing import TarballSource
from usercontainerd.engine.archives.input import open_nameless, write_all
from usercontainerd.engine.archives.saving import OCI_TAR, build_oci_manifest, read_original
from usercontainerd.engine.containers.differences import list_mount_points
from usercontainerd.engine.containers.exporting import find_root_layers
from usercontainerd.engine.containers.inspection import format_rfc3339
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.engine.containers.standstill import find_group, standing_still
from usercontainerd.engine.images.instructions import apply_changes
from usercontainerd.engine.images.layer_forms import LayerForms
from usercontainerd.engine.images.local import get_image, ignore_progress, open_images, start_worker
from usercontainerd.engine.images.names import plan_name
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.transfers.pulling import Pull
from usercontainerd.kernel.atomicfile import FileLock
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.oci.conversion import ManifestForm, convert_layer
from usercontainerd.oci.digest import Digest, new_hash
from usercontainerd.oci.manifest import DOCKER_MANIFEST, OCI_MANIFEST, Descriptor
from usercontainerd.oci.reference import Reference
from usercontainerd.runtime.remains import layer_directory, layer_lock
from usercontainerd.runtime.summary import read_summary
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.store.outputs import ArchiveStream
    from usercontainerd.store.records import ImageRecord
    from usercontainerd.store.worker import Worker

FORMS = {"oci": ManifestForm.OCI, "docker": ManifestForm.DOCKER}
_PIECE = 1024 * 1024
# What docker noted of the container that made an image, long ago: of another container than this.
_FORMER = ("container", "container_config", "docker_version")


class Commit:
    """How the image is to be: ``changes`` are instructions of a Containerfile, see ``engine.images.instructions``.

    ``squash`` makes one layer of everything. ``pause`` has a running container stand still meanwhile.
    """

    __slots__ = ("author", "changes", "form", "message", "pause", "squash")

    def __init__(
        self,
        *,
        changes: Sequence[str] = (),
        author: str = "",
        message: str = "",
        form: ManifestForm = ManifestForm.OCI,
        pause: bool = True,
        squash: bool = False,
    ) -> None:
        self.changes = tuple(changes)
        self.author = author
        self.message = message
        self.form = form
        self.pause = pause
        self.squash = squash


def parse_form(text: str) -> ManifestForm:
    """``oci`` (also if empty) or ``docker``. Raises ``InvalidArgument``."""
    if text not in ("", *FORMS):
        raise InvalidArgument(
            f'"{text}" is no format of an image', hint=f"possible are {' and '.join(FORMS)}"
        )
    return FORMS[text or "oci"]


def commit_container(
    context: Context, name: str, text: str | None, commit: Commit, *, progress: Progress = ignore_progress
) -> tuple[ImageRecord, list[str]]:
    """Make an image of container ``name``, called ``text`` if that is given; return it, and warnings.

    Raises ``NoSuchContainer``, ``NoSuchImage``, ``InvalidArgument`` for a change, ``InvalidReference``, ``StoreError``…
    """
    reference = None if text is None else plan_name(text)
    images = open_images(context)
    with ExitStack() as stack:
        group = hold_still(context, name, stack)
        layers = find_root_layers(context, name, stack)
        record = get_image(context, find_image_of(context, name, running=group is not None))
        former = images.blobs.read(record.id)
        apply_changes(
            commit.changes, json.loads(former).get("config")
        )  # says what is wrong before anything is read
        worker = stack.enter_context(start_worker(context))
        spool = open_spool(context, stack)
        upper = f"{layer_directory(context.paths.container_data(name))}/upper"
        new: Descriptor | None = None
        warnings: list[str] = []
        if commit.squash or layers[:1] == [upper]:
            progress(Phase.READ, name, 0, 0)
            with standing_still(group) if group is not None and commit.pause else nullcontext():
                if commit.squash:
                    archive = worker.start_export(layers)
                else:
                    archive = worker.start_archive(upper, list_mount_points(context, name))
                new, warnings = write_layer(archive, spool, stack)
        configuration = build_configuration(former, new, commit, created=format_rfc3339(time.time()))
        kept = [] if commit.squash else describe_layers(context, record, worker)
        manifest = build_manifest(configuration, [*kept, *((new,) if new is not None else ())], commit.form)
        media_type = DOCKER_MANIFEST if commit.form is ManifestForm.DOCKER else OCI_MANIFEST
        with Pull(
            context,
            TarballSource(spool, configuration, manifest, media_type, "commit"),
            reference or Reference("", name),
            approve=lambda _image: None,
            progress=progress,
            names=() if reference is None else (reference,),
        ) as pull:
            return pull.run(), warnings


def hold_still(context: Context, name: str, stack: ExitStack) -> str | None:
    """Keep a stopped container from starting; of one that runs, return its cgroup's directory."""
    data = context.paths.container_data(name)
    make_private_directories(data)
    lock = FileLock(layer_lock(data))
    lock.acquire()
    stack.callback(lock.release)
    init = find_init(context.paths, name)
    if init is None:
        return None
    os.close(init.fd)
    lock.release()
    return find_group(init)


def find_image_of(context: Context, name: str, *, running: bool) -> str:
    """The image of a container: of one that runs, that from which it was started, whatever its name means by now."""
    if running:
        summary = read_summary(f"{context.paths.bundle(name)}/summary")
        if summary is not None and summary.image_id:
            return summary.image_id
    from usercontainerd.engine.definitions import read_definition

    return read_definition(context, name).definition.image


def open_spool(context: Context, stack: ExitStack) -> int:
    """A file without a name, for as long as ``stack`` lasts."""
    store = Store(context.paths)
    store.prepare()
    spool = open_nameless(store.staging)
    stack.callback(os.close, spool)
    return spool


def write_layer(archive: ArchiveStream, spool: int, stack: ExitStack) -> tuple[Descriptor, list[str]]:
    """Write an archive to ``spool``; return what it is called, and what had to be left out."""
    stack.callback(archive.close)
    state, size = new_hash("sha256"), 0
    while data := archive.read(_PIECE):
        state.update(data)
        size += len(data)
        write_all(spool, data, "the store")
    return Descriptor(OCI_TAR, Digest(f"sha256:{state.hexdigest()}"), size), archive.warnings


def describe_layers(context: Context, record: ImageRecord, worker: Worker) -> list[Descriptor]:
    """The layers of an image as its own manifest has them; without one, as their plain archives."""
    original = read_original(open_images(context), record, [name.name for name in record.names])
    if original is not None:
        return list(original[1].layers)
    forms = LayerForms(context, lambda: worker)
    return [Descriptor(OCI_TAR, diff_id, forms.measure_tar(diff_id)) for diff_id in record.layers]


def build_manifest(configuration: bytes, layers: Sequence[Descriptor], form: ManifestForm) -> bytes:
    """The manifest of the new image. Pure. Raises ``InvalidArgument`` for what Docker's form cannot say."""
    converted = [convert_layer(layer, form) for layer in layers]
    if form is ManifestForm.DOCKER:
        return build_docker_manifest(configuration, converted)
    return build_oci_manifest(configuration, converted)


def build_configuration(former: bytes, new: Descriptor | None, commit: Commit, *, created: str) -> bytes:
    """The configuration of the new image, of that of the container's image. Pure."""
    document: dict[str, Any] = json.loads(former)
    for key in _FORMER:
        document.pop(key, None)
    document["created"] = created
    if commit.author:
        document["author"] = commit.author
    document["config"] = apply_changes(commit.changes, document.get("config"))
    former_ids = [] if commit.squash else document["rootfs"]["diff_ids"] or []
    document["rootfs"] = {
        "type": "layers",
        "diff_ids": [*former_ids, *((new.digest,) if new is not None else ())],
    }
    step = {
        "created": created,
        "created_by": "usercontainer commit",
        **({"author": commit.author} if commit.author else {}),
        **({"comment": commit.message} if commit.message else {}),
        **({"empty_layer": True} if new is None else {}),
    }
    document["history"] = [*(() if commit.squash else document.get("history") or ()), step]
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
