"""Pushing an index: its images first, the index last, so that a registry never has an index whose images are missing.

Images that are here are sent as any push sends them; one whose layers have to be compressed anew gets another digest,
and the index that is pushed names that. Images that are only in a registry are copied from there, blob by blob, each
checked by its digest on the way; nothing of them is kept.
"""

from __future__ import annotations

from contextlib import ExitStack

from usercontainerd.base.errors import InvalidArgument, InvalidFormat, NoSuchImage, StoreError
from usercontainerd.base.records import replace
from usercontainerd.engine.archives.input import open_spool
from usercontainerd.engine.images.indexes import find_index, forget_index, get_index, list_index_names
from usercontainerd.engine.images.local import ignore_progress, open_images, read_registries
from usercontainerd.engine.images.names import find_meant_names
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess, open_client
from usercontainerd.engine.registries.endpoints import try_candidates
from usercontainerd.engine.transfers.pushing import (
    AS_IT_IS,
    ImageSender,
    Pushed,
    PushOptions,
    plan_destination,
    read_manifest,
)
from usercontainerd.engine.transfers.resolution import ResolvedImage
from usercontainerd.oci.conversion import ManifestForm, build_manifest, find_form
from usercontainerd.oci.digest import Digest, compute_digest
from usercontainerd.oci.index import Instance, render_docker_list, render_index
from usercontainerd.oci.manifest import (
    DOCKER_LIST,
    OCI_INDEX,
    Descriptor,
    Manifest,
    parse_manifest,
)
from usercontainerd.oci.reference import Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.engine.registries.source import RegistrySource
    from usercontainerd.oci.manifest import FetchedManifest
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.indexes import IndexRecord
    from usercontainerd.store.records import ImageRecord


def push_index(
    context: Context,
    text: str,
    destination: str | None = None,
    *,
    everything: bool = True,
    remove: bool = False,
    options: PushOptions = AS_IT_IS,
    access: RegistryAccess = AS_CONFIGURED,
    progress: Progress = ignore_progress,
) -> Pushed:
    """Push the index ``text`` to ``destination``, or to where its own name says.

    ``everything`` sends its images, too; without it the registry must have them. ``remove`` forgets the index once it
    is there. Raises ``NoSuchImage``, ``InvalidArgument``, ``PullDenied``, ``RegistryError``, ``StoreError``…
    """
    record = get_index(context, text)
    images = open_images(context)
    names = find_meant_names(context, text, list_index_names(images, record.id))
    name = images.read_name(names[0]) if names else None
    target = plan_destination(text, name, destination)
    index = record.index
    with ExitStack() as stack:
        client = open_client(context, read_registries(context).locate(target), target, access)
        stack.callback(client.close)
        sender = ImageSender(context, client, target, options=options, progress=progress)
        if everything:
            copier = InstanceCopier(
                context, record, sender, target, access=access, options=options, progress=progress
            )
            index = replace(index, instances=tuple(copier.copy(each) for each in index.instances))
        if options.form is ManifestForm.DOCKER:
            data, media_type = render_docker_list(index), DOCKER_LIST
        else:
            data, media_type = render_index(index), OCI_INDEX
        digest = sender.uploader.put_manifest(target.wanted, data, media_type)
    if remove and find_index(context, text) is not None:
        forget_index(context, text, force=True)
    progress(Phase.DONE, str(target), 1, 1)
    return Pushed(target, digest)


class InstanceCopier:
    """Brings the images of one index to the repository of ``sender``."""

    def __init__(
        self,
        context: Context,
        record: IndexRecord,
        sender: ImageSender,
        target: Reference,
        *,
        access: RegistryAccess,
        options: PushOptions,
        progress: Progress,
    ) -> None:
        self._context = context
        self._record = record
        self._sender = sender
        self._target = target
        self._access = access
        self._options = options
        self._progress = progress

    def copy(self, instance: Instance) -> Instance:
        """Bring an image there; return what the index has to say of it."""
        images = open_images(self._context)
        local = find_local(images, instance.digest)
        source = self._record.sources.get(instance.digest, "")
        if local is not None:
            there = self._sender.send(local, read_manifest(images, local, instance.digest))
        elif source:
            there = self._copy_remote(instance, parse_reference(source).with_digest(instance.digest))
        else:
            raise NoSuchImage(
                f"the image {instance.digest} of the index is not here any more, and no registry is known to have it",
                hint="pull or load it again, or take it out with `usercontainer manifest remove`",
            )
        return replace(instance, media_type=there.media_type, digest=there.digest, size=there.size)

    def _copy_remote(self, instance: Instance, source: Reference) -> Descriptor:
        access = self._access
        if source.registry != self._target.registry:
            # What the command line says is about the registry that is pushed to.
            access = replace(access, credentials=None, cert_dir=None, tls_verify=None)

        def attempt(client: RegistrySource, name: Reference) -> Descriptor:
            try:
                return self._copy_from(client, name, instance)
            finally:
                client.close()

        return try_candidates(self._context, read_registries(self._context), [source], attempt, access=access)

    def _copy_from(self, client: RegistrySource, name: Reference, instance: Instance) -> Descriptor:
        from usercontainerd.engine.registries.admission import read_admission

        fetched = client.fetch_manifest(instance.digest)
        if len(fetched.data) != instance.size:
            raise InvalidFormat(
                f"the manifest {instance.digest} has {len(fetched.data)} bytes, the index says {instance.size}",
                where=fetched.where,
            )
        manifest = parse_manifest(fetched.data, instance.media_type, where=fetched.where)
        if not isinstance(manifest, Manifest):
            raise InvalidFormat("an index leads to another index", where=fetched.where)
        approve = read_admission(self._context).for_registry(name, lambda: client.client)
        approve(ResolvedImage(name, (fetched,), manifest))
        if self._options.compression is not None or self._options.force:
            raise InvalidArgument(
                f"the image {instance.digest} is only in a registry: its layers are copied as they are",
                hint="pull it first, or leave the compression as it is",
            )
        for blob in (*manifest.layers, manifest.config):
            self._copy_blob(client, name, blob)
        return self._put_manifest(manifest, fetched)

    def _put_manifest(self, manifest: Manifest, fetched: FetchedManifest) -> Descriptor:
        data, media_type = fetched.data, manifest.media_type
        form = self._options.form or find_form(media_type)
        if form is not find_form(media_type):
            data, media_type = build_manifest(manifest, manifest.layers, form)
        digest = self._sender.uploader.put_manifest(compute_digest(data), data, media_type)
        return Descriptor(media_type, digest, len(data))

    def _copy_blob(self, client: RegistrySource, name: Reference, blob: Descriptor) -> None:
        uploader = self._sender.uploader
        if uploader.has_blob(blob):
            self._progress(Phase.PRESENT, blob.digest, 1, 1)
            return
        if name.registry == self._target.registry and uploader.mount_blob(blob, name.repository):
            self._progress(Phase.MOUNT, blob.digest, 1, 1)
            return
        store = open_images(self._context).store
        store.prepare()
        with open_spool(store.staging) as (file, write):
            self._progress(Phase.DOWNLOAD, blob.digest, 0, blob.size)
            client.copy_blob(
                blob, write, lambda done: self._progress(Phase.DOWNLOAD, blob.digest, done, blob.size)
            )
            self._progress(Phase.UPLOAD, blob.digest, 0, blob.size)
            uploader.put_blob(
                blob, file, lambda done: self._progress(Phase.UPLOAD, blob.digest, done, blob.size)
            )


def find_local(images: ImageStore, digest: Digest) -> ImageRecord | None:
    """Return the image that has this manifest, if all of it is here."""
    for record in images.all():
        known = {record.manifest, *(each for name in record.names for each in name.digests)}
        if digest in known and images.blobs.has(digest) and images.is_whole(record):
            try:
                manifest, _ = read_manifest(images, record, digest)
            except StoreError:
                continue
            if manifest.config.digest == record.id:
                return record
    return None
