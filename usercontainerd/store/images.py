"""Images at rest: one record for each image (by the digest of its configuration) and one for each of its
names.

A record is written last, when all that it leads to is on disk; a name after its image. Both are small files
that are replaced whole, so readers need no lock. Writers hold the lock ``images``.

A record that cannot be read counts as absent, so that one bad file stops nothing else; but as long as there is
one, nothing is put away that it may lead to. ``checking`` reports and mends it.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import (
    DigestMismatch,
    InvalidFormat,
    InvalidReference,
    NoSuchImage,
    StoreError,
)
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.oci.digest import Digest, is_digest
from usercontainerd.oci.reference import Reference, parse_reference
from usercontainerd.store.blobs import BlobStore
from usercontainerd.store.layers import LayerStore
from usercontainerd.store.layout import Store
from usercontainerd.store.locks import ObjectLock
from usercontainerd.store.records import (
    MAX_FORMER_NAMES,
    MAX_RECORD,
    ImageRecord,
    NameRecord,
    name_file,
    parse_image_record,
    parse_name_record,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from usercontainerd.oci.image import ImageConfiguration

    _Record = TypeVar("_Record")

_HEX = frozenset("0123456789abcdef")


def _read(path: str) -> bytes | None:
    # Half the time of open(): a list of images reads hundreds of these.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"cannot read: {error.strerror}", where=path) from error
    try:
        data = b""
        while len(data) <= MAX_RECORD and (chunk := os.read(fd, 16384)):
            data += chunk
        return data
    except IsADirectoryError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot read: {error.strerror}", where=path) from error
    finally:
        os.close(fd)


def _read_record(path: str, parse: Callable[[bytes, str], _Record]) -> _Record | None:
    data = _read(path)
    if data is None:
        return None
    try:
        return parse(data, path)
    except InvalidFormat:
        return None


class ImageStore:
    """The images of a store."""

    def __init__(self, store: Store) -> None:
        store.check_format()
        self.store = store
        self.layers = LayerStore(store)
        self.blobs = BlobStore(store)

    def lock(self) -> ObjectLock:
        """The lock that writers of records hold, for a short time."""
        return ObjectLock(self.store.lock("images"))

    # Reading

    def read(self, image_id: Digest) -> ImageRecord | None:
        """Return the record of an image, without its names; None if there is none that can be read."""
        record = _read_record(f"{self.store.images}/{image_id.hex}.json", parse_image_record)
        return record if record is not None and record.id == image_id else None

    def read_name(self, name: str) -> NameRecord | None:
        """Return the record of a full name (``registry/repository:tag``), None if there is none."""
        record = _read_record(f"{self.store.names}/{name_file(name)}", parse_name_record)
        return record if record is not None and record.name == name else None

    def all_names(self) -> list[NameRecord]:
        """All names, sorted."""
        return sorted(self._load_names()[0], key=lambda record: record.name)

    def all(self) -> list[ImageRecord]:
        """All images with their names, the one pulled last first."""
        by_image: dict[Digest, list[NameRecord]] = {}
        for name in self.all_names():
            by_image.setdefault(name.image, []).append(name)
        images = self._load_images()[0]
        for record in images:
            record.names = tuple(by_image.get(record.id, ()))
        return sorted(images, key=lambda record: (-record.pulled, record.id))

    def unreadable(self) -> list[str]:
        """The files that should be records and are not, or are those of something else."""
        return [*self._load_images()[1], *self._load_names()[1]]

    def _load_images(self) -> tuple[list[ImageRecord], list[str]]:
        records, bad = [], []
        for file in _list_records(self.store.images):
            if not set(file.removesuffix(".json")) <= _HEX:
                continue  # not one of ours
            path = f"{self.store.images}/{file}"
            record = _read_record(path, parse_image_record)
            if record is not None and f"{record.id.hex}.json" == file:
                records.append(record)
            elif os.path.lexists(path):
                bad.append(path)
        return records, bad

    def _load_names(self) -> tuple[list[NameRecord], list[str]]:
        records, bad = [], []
        for file in _list_records(self.store.names):
            path = f"{self.store.names}/{file}"
            record = _read_record(path, parse_name_record)
            if record is not None and name_file(record.name) == file:
                records.append(record)
            elif os.path.lexists(path):
                bad.append(path)
        return records, bad

    def find(self, text: str, registries: Sequence[str] = ("docker.io",)) -> ImageRecord | None:
        """Find an image by name or ID prefix; None if there is none.

        A short name is looked for in ``localhost`` and then in ``registries``, in their order. ``latest`` is
        meant where neither tag nor digest is given. Raises ``InvalidReference`` for what is neither, and for
        an ID prefix that several images share.
        """
        if is_digest(text):
            return self._with_names(self.read(Digest(text)))
        try:
            reference: Reference | None = parse_reference(text)
        except InvalidReference:
            if not _is_id_prefix(text):
                raise
            reference = None
        if reference is not None and (found := self._find_reference(reference, registries)) is not None:
            return found
        return self._find_prefix(text) if _is_id_prefix(text) else None

    def get(self, text: str, registries: Sequence[str] = ("docker.io",)) -> ImageRecord:
        """``find``, but raise ``NoSuchImage``."""
        record = self.find(text, registries)
        if record is None:
            raise NoSuchImage(f"there is no image {text!r} here", hint=f"usercontainer pull {text}")
        return record

    def _find_reference(self, reference: Reference, registries: Sequence[str]) -> ImageRecord | None:
        candidates = (
            [reference.with_registry(registry) for registry in ("localhost", *registries)]
            if reference.is_short
            else [reference]
        )
        for candidate in candidates:
            wanted = candidate.with_default_tag()
            if wanted.digest is not None:
                found = self._find_digest(wanted)
            else:
                name = self.read_name(str(wanted))
                found = None if name is None else self._find_named(name)
            if found is not None:
                return found
        return None

    def _find_named(self, name: NameRecord) -> ImageRecord | None:
        """What a name leads to; of an index, its image for this machine if that is here."""
        found = self.read(name.image)
        if found is None:
            from usercontainerd.store.indexes import IndexStore, find_host_image

            index = IndexStore(self.store).read(name.image)
            found = None if index is None else find_host_image(index, self.all())
        return self._with_names(found)

    def _find_digest(self, reference: Reference) -> ImageRecord | None:
        for name in self.all_names():
            if reference.digest in name.digests and name.reference.name == reference.name:
                return self._with_names(self.read(name.image))
        # A name may have moved on; what a container was made from stays the same by its digest.
        return next((image for image in self.all() if image.manifest == reference.digest), None)

    def _find_prefix(self, text: str) -> ImageRecord | None:
        prefix = text.removeprefix("sha256:")
        matches = [file for file in _list_records(self.store.images) if file.startswith(prefix)]
        if len(matches) > 1:
            raise InvalidReference(f"the ID {text} is not unique: {len(matches)} images begin with it")
        if not matches:
            return None
        return self._with_names(self.read(Digest(f"sha256:{matches[0].removesuffix('.json')}")))

    def _with_names(self, record: ImageRecord | None) -> ImageRecord | None:
        if record is not None:
            record.names = tuple(name for name in self.all_names() if name.image == record.id)
        return record

    def configuration(self, record: ImageRecord) -> ImageConfiguration:
        """Return what the image says about how to run it. Raises ``StoreError`` if the store is damaged."""
        from usercontainerd.oci.image import parse_image_configuration

        return parse_image_configuration(self.blobs.read(record.id), where=self.store.blob(record.id))

    def layer_directories(self, record: ImageRecord) -> tuple[str, ...]:
        """Return the directories to mount, lowest first, each once.

        Raises ``StoreError`` if one is missing.
        """
        directories = []
        # overlayfs takes a directory once; where a layer comes twice, its upper place decides all that one
        # sees.
        unique = dict.fromkeys(reversed(record.layers))
        for diff_id in reversed(unique):
            directory = self.layers.directory(diff_id)
            if not os.path.isdir(directory):
                raise StoreError(
                    f"a layer of the image {record.short_id} is missing",
                    where=directory,
                    hint="pull the image again",
                )
            directories.append(directory)
        return tuple(directories)

    def is_whole(self, record: ImageRecord) -> bool:
        """Tell whether everything that the record leads to is there."""
        try:
            self.blobs.read(record.id)
        except (StoreError, DigestMismatch):
            return False
        return all(self.layers.has(diff_id) for diff_id in record.layers)

    # Writing; the caller holds ``lock()``

    def add(self, record: ImageRecord) -> None:
        """Record an image of which everything is on disk."""
        write_atomic(f"{self.store.images}/{record.id.hex}.json", record.render())

    def add_name(self, name: NameRecord) -> None:
        """Let a name lead to an image; what it led to before becomes nameless unless it has others."""
        current = self.read_name(name.name)
        if current is not None and current.image != name.image:
            self._note_former(current)
        if current is None or current.render() != name.render():
            write_atomic(f"{self.store.names}/{name_file(name.name)}", name.render())

    def remove_name(self, name: str) -> None:
        """Forget a name; its image remembers that it had it."""
        current = self.read_name(name)
        if current is not None:
            try:
                self._note_former(current)
            except StoreError:
                pass  # on a full disk it has to be possible to remove things
        self._unlink(f"{self.store.names}/{name_file(name)}")

    def _note_former(self, name: NameRecord) -> None:
        record = self.read(name.image)
        if record is not None:
            record.former = tuple(dict.fromkeys((name.name, *record.former)))[:MAX_FORMER_NAMES]
            self.add(record)

    def remove(self, record: ImageRecord) -> list[Digest]:
        """Forget an image and its names.

        Return the layers that went to the trash because nothing needs them.
        """
        self.forget(record)
        return self.collect()

    def forget(self, record: ImageRecord) -> None:
        """Forget an image and its names, but leave to ``collect`` what only it needed."""
        for name in record.names:
            self._unlink(f"{self.store.names}/{name_file(name.name)}")
        self._unlink(f"{self.store.images}/{record.id.hex}.json")

    @staticmethod
    def _unlink(path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def needed_layers(self, images: Sequence[ImageRecord] | None = None) -> set[Digest]:
        """The diffIDs of all layers that must stay. The caller holds ``lock()``; ``images`` are all there are."""
        return {layer for image in (self.all() if images is None else images) for layer in image.layers}

    def needed_blobs(self, images: Sequence[ImageRecord] | None = None) -> set[Digest]:
        """The digests of all blobs that must stay: whoever deletes blobs asks here. The caller holds ``lock()``.

        Of each image its configuration and manifest, of each name the manifest and index that it was pulled by, of
        each layer that is needed the compressed forms (most are not kept, then naming them does no harm). Whatever
        new leads to blobs has to be added here, and nowhere else.
        """
        images = self.all() if images is None else images
        needed: set[Digest] = set()
        for image in images:
            needed.update((image.id, image.manifest))
            needed.update(digest for name in image.names for digest in name.digests)
        for diff_id in self.needed_layers(images):
            layer = self.layers.read(diff_id)
            if layer is not None:
                needed.update(blob.digest for blob in layer.blobs)
        return needed

    def collect(self) -> list[Digest]:
        """Put away the layers and blobs that nothing needs; nothing while a record cannot be read.

        Return the layers.
        """
        if self.unreadable():
            return []
        images = self.all()
        blobs = self.needed_blobs(images)
        gone = self.layers.collect(self.needed_layers(images))
        self.blobs.collect(blobs)
        return gone


def _list_records(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(".json") and name[0] != ".")
    except FileNotFoundError:
        return []


def _is_id_prefix(text: str) -> bool:
    digits = text.removeprefix("sha256:")
    return 2 <= len(digits) <= 64 and set(digits) <= _HEX
