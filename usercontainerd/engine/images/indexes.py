"""Use cases of local indexes (manifest lists): make, fill, change and forget them. Nothing of an image is copied.

An index shares the names of images: a name leads to one or the other. What is fetched from registries is fetched before
the lock of the records is taken; the change is then made to the index as it is under the lock.
"""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import (
    AlreadyExists,
    InvalidArgument,
    InvalidFormat,
    InvalidReference,
    NoSuchImage,
)
from usercontainerd.base.records import dataclass, replace
from usercontainerd.engine.images.local import current_time, open_images, read_registries
from usercontainerd.engine.images.names import plan_name
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess
from usercontainerd.oci.digest import Digest, compute_digest, is_digest
from usercontainerd.oci.index import (
    ImageIndex,
    Instance,
    PlatformDetails,
    parse_index,
)
from usercontainerd.oci.reference import parse_reference
from usercontainerd.store.images import ImageStore
from usercontainerd.store.indexes import IndexRecord, IndexStore
from usercontainerd.store.records import ImageRecord, NameRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.index_members import Member
    from usercontainerd.oci.reference import Reference

Pairs = tuple[tuple[str, str], ...]
_FEWEST_DIGITS = 2  # of an ID, as for images


@dataclass(frozen=True)
class Overrides:
    """What the entry of an image says other than the image itself; None: as the image says."""

    architecture: str | None = None
    os: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] | None = None
    variant: str | None = None
    features: tuple[str, ...] | None = None
    annotations: Pairs = ()

    def apply(self, instance: Instance) -> Instance:
        """Return the entry with these."""
        keys = ("architecture", "os", "os_version", "os_features", "variant", "features")
        changes = {key: value for key in keys if (value := getattr(self, key)) is not None}
        return replace(
            instance,
            platform=replace(instance.platform, **changes),
            annotations=merge_pairs(instance.annotations, self.annotations),
        )


AS_IT_SAYS = Overrides()


def merge_pairs(old: Pairs, new: Pairs) -> Pairs:
    """Return the pairs of both, those of ``new`` instead of old ones of the same name. Pure."""
    return tuple({**dict(old), **dict(new)}.items())


def open_indexes(context: Context) -> IndexStore:
    """Return the user's indexes; nothing is made on disk."""
    return IndexStore(open_images(context).store)


def find_index(context: Context, text: str) -> IndexRecord | None:
    """Find an index by one of its names or the beginning of its ID; None if it is not one.

    Raises ``InvalidReference`` for an ID that several begin with.
    """
    indexes = open_indexes(context)
    ids = indexes.list_ids()
    if not ids:
        return None
    images = open_images(context)
    try:
        reference = parse_reference(text)
    except InvalidReference:
        reference = None
    if reference is not None and reference.digest is None:
        candidates = [reference]
        if reference.is_short:
            candidates = list(read_registries(context).local_candidates(reference))
        for candidate in candidates:
            name = images.read_name(str(candidate.with_default_tag()))
            if name is not None:
                # The first name that leads anywhere decides, as for images.
                return indexes.read(name.image)
    return _find_by_id(images, indexes, text)


def _find_by_id(images: ImageStore, indexes: IndexStore, text: str) -> IndexRecord | None:
    digits = text.removeprefix("sha256:")
    if len(digits) < _FEWEST_DIGITS:
        return None
    matches = [each for each in indexes.list_ids() if each.hex.startswith(digits)]
    if not matches:
        return None
    count = len(matches) + sum(image.id.hex.startswith(digits) for image in images.all())
    if count > 1:
        raise InvalidReference(f"the ID {text} is not unique: {count} images and indexes begin with it")
    return indexes.read(matches[0])


def get_index(context: Context, text: str) -> IndexRecord:
    """``find_index``, but raise ``NoSuchImage``."""
    found = find_index(context, text)
    if found is None:
        raise NoSuchImage(f"there is no index {text!r} here", hint=f"usercontainer manifest create {text}")
    return found


def list_index_names(images: ImageStore, index_id: Digest) -> list[str]:
    """Return the names that lead to an index."""
    return [name.name for name in images.all_names() if name.image == index_id]


def create_index(
    context: Context,
    name: str,
    members: Sequence[str] = (),
    *,
    everything: bool = False,
    amend: bool = False,
    annotations: Pairs = (),
    access: RegistryAccess = AS_CONFIGURED,
) -> IndexRecord:
    """Make an index, with images in it; with ``amend`` add them to the one of that name if there is one.

    ``everything`` takes all images of one that is an index itself, not only that of this machine. Raises
    ``AlreadyExists`` if the name is taken, ``NoSuchImage``…
    """
    from usercontainerd.engine.images.index_members import find_members

    reference = str(plan_name(name))
    images = open_images(context)
    images.store.prepare()
    current = images.read_name(reference)
    existing = None if current is None else open_indexes(context).read(current.image)
    if current is not None and (existing is None or not amend):
        kind = "an image" if existing is None else "an index"
        raise AlreadyExists(
            f"the name {reference} is that of {kind} already",
            hint="--amend adds to an index; another name" if existing else "choose another name",
        )
    found = [
        each for text in members for each in find_members(context, text, everything=everything, access=access)
    ]
    if existing is not None:
        return _change(context, existing.id, lambda record: _add(record, found, AS_IT_SAYS, annotations))
    now = current_time()
    record = IndexRecord(open_indexes(context).new_id(), ImageIndex(), created=now, changed=now)
    _add(record, found, AS_IT_SAYS, annotations)
    with images.lock():
        if images.read_name(reference) is not None:
            raise AlreadyExists(f"the name {reference} was taken just now")
        open_indexes(context).write(record)
        images.add_name(NameRecord(reference, record.id, ()))
    return record


def add_to_index(
    context: Context,
    text: str,
    members: Sequence[str],
    *,
    everything: bool = False,
    overrides: Overrides = AS_IT_SAYS,
    access: RegistryAccess = AS_CONFIGURED,
) -> IndexRecord:
    """Add images to the index ``text``: of this store, of registries (``docker://``) or of archives."""
    from usercontainerd.engine.images.index_members import find_members

    index_id = get_index(context, text).id
    open_images(context).store.prepare()
    found = [
        each for name in members for each in find_members(context, name, everything=everything, access=access)
    ]
    return _change(context, index_id, lambda record: _add(record, found, overrides, ()))


def _add(record: IndexRecord, members: Iterable[Member], overrides: Overrides, annotations: Pairs) -> None:
    for member in members:
        record.index = record.index.with_instance(overrides.apply(member.instance))
        if member.source:
            record.sources[member.instance.digest] = member.source
    record.index = replace(record.index, annotations=merge_pairs(record.index.annotations, annotations))


def annotate_image(context: Context, text: str, image: str, overrides: Overrides) -> IndexRecord:
    """Change what the index says of one of its images, which is named by digest or by a name that it has here."""

    def change(record: IndexRecord) -> None:
        instance = find_instance(context, record.index, image)
        record.index = record.index.with_instance(overrides.apply(instance))

    return _change(context, get_index(context, text).id, change)


def annotate_index(
    context: Context, text: str, annotations: Pairs, *, subject: str | None = None
) -> IndexRecord:
    """Annotate the index itself; ``subject`` is the image (here, or in a registry) that it refers to."""
    from usercontainerd.engine.images.index_members import find_members

    target: Instance | None = None
    if subject is not None:
        (member, *_) = find_members(context, subject, everything=False)
        target = replace(member.instance, platform=PlatformDetails(), annotations=())

    def change(record: IndexRecord) -> None:
        merged = merge_pairs(record.index.annotations, annotations)
        record.index = replace(record.index, annotations=merged, subject=target or record.index.subject)

    return _change(context, get_index(context, text).id, change)


def remove_from_index(context: Context, text: str, image: str) -> IndexRecord:
    """Take an image out of the index."""

    def change(record: IndexRecord) -> None:
        instance = find_instance(context, record.index, image)
        record.index = record.index.without(instance.digest)
        record.sources.pop(instance.digest, None)

    return _change(context, get_index(context, text).id, change)


def find_instance(context: Context, index: ImageIndex, text: str) -> Instance:
    """Return the entry that is meant. Raises ``NoSuchImage``."""
    from usercontainerd.engine.images.local import find_image

    digests: list[Digest] = [Digest(text)] if is_digest(text) else []
    if not digests:
        record = find_image(context, text)
        if record is not None:
            digests = [record.manifest, *(digest for name in record.names for digest in name.digests)]
    found = next((each for digest in digests if (each := index.find(digest)) is not None), None)
    if found is None:
        offered = ", ".join(each.digest for each in index.instances[:5]) or "nothing"
        raise NoSuchImage(f"{text} is not in the index", hint=f"in it is {offered}")
    return found


def _change(context: Context, index_id: Digest, change: Callable[[IndexRecord], None]) -> IndexRecord:
    images = open_images(context)
    indexes = open_indexes(context)
    with images.lock():
        record = indexes.read(index_id)
        if record is None:
            raise NoSuchImage(f"the index {index_id.hex[:12]} has just been removed")
        change(record)
        record.changed = current_time()
        indexes.write(record)
    return record


def forget_index(context: Context, text: str, *, force: bool = False) -> tuple[list[str], Digest | None]:
    """Remove a name of an index, and the index with its last one; return these names, and its ID if it went.

    By ID it goes if it has one name or none, else with ``force`` only. Raises ``NoSuchImage``, ``InvalidArgument``.
    """
    from usercontainerd.engine.images.names import find_meant_names

    index_id = get_index(context, text).id
    images = open_images(context)
    with images.lock():
        names = list_index_names(images, index_id)
        meant = find_meant_names(context, text, names)
        if not meant and len(names) > 1 and not force:
            raise InvalidArgument(
                f"the index {index_id.hex[:12]} has several names: {', '.join(names)}",
                hint="remove them by name, or use --force",
            )
        chosen = meant or names
        for name in chosen:
            images.remove_name(name)
        if len(chosen) < len(names):
            return chosen, None
        open_indexes(context).remove(index_id)
    return chosen, index_id


def name_index(context: Context, text: str, names: Sequence[Reference]) -> bool:
    """Give an index more names; False if ``text`` is no index."""
    found = find_index(context, text)
    if found is None:
        return False
    images = open_images(context)
    with images.lock():
        if open_indexes(context).read(found.id) is None:
            raise NoSuchImage(f"the index {text} has just been removed")
        for reference in names:
            images.add_name(NameRecord(str(reference), found.id, ()))
    return True


def unname_index(context: Context, text: str, names: Sequence[str]) -> list[str] | None:
    """Take names from an index, without ``names`` all of them; None if ``text`` is no index."""
    from usercontainerd.engine.images.names import choose_names

    found = find_index(context, text)
    if found is None:
        return None
    images = open_images(context)
    with images.lock():
        present = list_index_names(images, found.id)
        chosen = choose_names(context, names, present, f"the index {found.id.hex[:12]}")
        for name in chosen:
            images.remove_name(name)
    return chosen


def describe_indexes(images: ImageStore) -> list[ImageRecord]:
    """Return the indexes as a list of images shows them: with their names, their digest, and their own size."""
    named: dict[Digest, list[NameRecord]] = {}
    for name in images.all_names():
        named.setdefault(name.image, []).append(name)
    records = []
    for index in IndexStore(images.store).all():
        document = index.document
        records.append(
            ImageRecord(
                index.id,
                manifest=compute_digest(document),
                layers=(),
                size=len(document),
                created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(index.created)),
                platform="",
                pulled=index.created,
                names=named.get(index.id, ()),
            )
        )
    return records


def read_document(context: Context, text: str, access: RegistryAccess = AS_CONFIGURED) -> bytes:
    """Return an index as it is here, else as the registry has it. Raises ``NoSuchImage``, ``InvalidFormat``…"""
    from usercontainerd.engine.images.index_members import fetch_document, split_registry
    from usercontainerd.engine.images.local import find_image

    name, forced = split_registry(text)
    if not forced:
        found = find_index(context, name)
        if found is not None:
            return found.document
        if find_image(context, name) is not None and os.path.sep not in name:
            raise InvalidFormat(f"{text} is an image, not an index")
    fetched, where = fetch_document(context, name, access)
    try:
        index = parse_index(fetched.data, where=where)
    except InvalidFormat:
        index = ImageIndex()
    if not index.instances and b'"manifests"' not in fetched.data:
        raise InvalidFormat(f"{text} is an image, not an index", where=where)
    return fetched.data
