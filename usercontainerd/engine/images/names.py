"""Giving images names and taking them: ``tag``, ``untag``, and which of its names a user means."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidReference, NoSuchImage, UsercontainerError
from usercontainerd.engine.images.local import get_image, open_images, read_registries
from usercontainerd.oci.reference import Reference, parse_reference
from usercontainerd.store.records import NameRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord

LOCAL = "localhost"  # the registry of names that are given here, as in podman


def plan_name(text: str) -> Reference:
    """Return the full name that a user means to give: ``app`` is ``localhost/app:latest``.

    Raises ``InvalidReference``; a name with a digest cannot be given.
    """
    reference = parse_reference(text)
    if reference.digest is not None:
        raise InvalidReference(
            f"{text!r} cannot be given as a name: a digest is not ours to choose", hint="use a tag"
        )
    if reference.is_short:
        reference = reference.with_registry(LOCAL)
    return reference.with_default_tag()


def tag_image(context: Context, text: str, targets: Sequence[str]) -> ImageRecord | None:
    """Give the image ``text`` more names; an image that had one of them loses it. None: it is an index.

    Raises ``NoSuchImage``, ``InvalidReference``; then no name was given.
    """
    references = [plan_name(target) for target in targets]
    images = open_images(context)
    if images.store.has_indexes():
        from usercontainerd.engine.images.indexes import name_index

        if name_index(context, text, references):
            return None
    found = get_image(context, text)
    images.store.prepare()
    with images.lock():
        record = reread_image(images, found)
        for reference in references:
            # What the same registry's repository knows it by stays true under a further tag.
            digests = next(
                (name.digests for name in record.names if name.reference.name == reference.name),
                (record.manifest,),
            )
            images.add_name(NameRecord(str(reference), record.id, digests))
    return record


def untag_image(context: Context, text: str, names: Sequence[str] = ()) -> list[str]:
    """Take names from the image ``text``, without ``names`` all of them; return those that went.

    The image stays, and what it was called is remembered. Raises ``NoSuchImage`` for an image, and
    ``InvalidReference`` for a name, that is not there; then nothing has changed.
    """
    images = open_images(context)
    if images.store.has_indexes():
        from usercontainerd.engine.images.indexes import unname_index

        taken = unname_index(context, text, names)
        if taken is not None:
            return taken
    found = get_image(context, text)
    with images.lock():
        record = reread_image(images, found)
        present = [name.name for name in record.names]
        chosen = choose_names(context, names, present, f"the image {record.short_id}")
        for name in chosen:
            images.remove_name(name)
    return chosen


def choose_names(context: Context, wanted: Sequence[str], present: Sequence[str], what: str) -> list[str]:
    """Return those of the names ``present`` that are wanted, all without any. Raises ``NoSuchImage`` for another."""
    chosen = list(present) if not wanted else []
    for name in wanted:
        meant = find_meant_names(context, name, present)
        if not meant:
            raise NoSuchImage(
                f"{what} has no name {name!r}", hint=f"its names are {', '.join(present) or 'none'}"
            )
        chosen += [each for each in meant if each not in chosen]
    return chosen


def reread_image(images: ImageStore, record: ImageRecord) -> ImageRecord:
    """Return the image as it is now, under the lock that the caller holds. Raises ``NoSuchImage``."""
    current = images.find(record.id)
    if current is None:
        raise NoSuchImage(f"the image {record.short_id} has just been removed")
    return current


def find_meant_names(context: Context, text: str, names: Sequence[str]) -> list[str]:
    """Which of an image's names the user meant by ``text``; none if it is an ID, or another image's name."""
    try:
        reference = parse_reference(text)
    except UsercontainerError:
        return []
    candidates = [reference]
    if reference.is_short:
        candidates = list(read_registries(context).local_candidates(reference))
    wanted = [str(candidate.with_default_tag()) for candidate in candidates]
    return [each for each in wanted if each in names][:1]
