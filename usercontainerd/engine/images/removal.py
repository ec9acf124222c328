"""Removing images: by name or ID, with what stood in the way if forced to, and all that nothing needs.

Containers that use an image keep it, and so does being mounted; a name that is not its last goes whatever uses it.
"""

from __future__ import annotations

from usercontainerd.base.errors import InUse, InvalidArgument, NoSuchImage
from usercontainerd.engine.images.family import ImageFamily
from usercontainerd.engine.images.local import empty_trash, get_image, open_images
from usercontainerd.engine.images.mounts import find_mounted
from usercontainerd.engine.images.names import find_meant_names, reread_image
from usercontainerd.engine.images.users import find_users
from usercontainerd.store.partial import remove_partials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from usercontainerd.engine.containers.listing import Container
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.users import ImageUsers
    from usercontainerd.oci.digest import Digest
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord
    from usercontainerd.systemd.manager import Manager


class Removed:
    """What a removal took: names, and the images that went with their last ones.

    ``partials`` are the sizes in bytes of downloads that had come in part.
    """

    __slots__ = ("deleted", "partials", "untagged")

    def __init__(self) -> None:
        self.untagged: list[str] = []
        self.deleted: list[Digest] = []
        self.partials: list[int] = []


def remove_image(
    context: Context, text: str, *, manager: Manager | None = None, force: bool = False, prune: bool = True
) -> Removed:
    """Remove the name ``text``, and the image if that was its last one; by ID the image with its only name.

    The same of an index. With ``prune`` also its parents go that have neither a name nor other children.
    ``force`` removes an image by ID with all of its names, and first stops the containers that use it and
    removes those that ``create`` made; what a file of the user's defines stays defined, and pulls the image
    again at its next start. ``manager`` tells what runs. Raises ``NoSuchImage``, ``InUse``, and
    ``InvalidArgument`` for an ID of several names.
    """
    removed = Removed()
    if _forget_index(context, text, removed, force=force):
        return removed
    record = get_image(context, text)
    if _remove_one_name(context, text, record, removed):
        return removed
    names = [name.name for name in record.names]
    if len(names) > 1 and not force:
        raise InvalidArgument(
            f"the image {record.short_id} has several names: {', '.join(names)}",
            hint="remove them by name, or use --force",
        )
    remove_images(context, [record], removed, manager=manager, force=force, prune=prune)
    return removed


def _forget_index(context: Context, text: str, removed: Removed, *, force: bool) -> bool:
    """Remove a name of an index, and it with its last one; False if ``text`` is none."""
    if not open_images(context).store.has_indexes():
        return False
    from usercontainerd.engine.images.indexes import find_index, forget_index

    if find_index(context, text) is None:
        return False
    names, index_id = forget_index(context, text, force=force)
    removed.untagged += names
    removed.deleted += [index_id] if index_id is not None else []
    return True


def _remove_one_name(context: Context, text: str, record: ImageRecord, removed: Removed) -> bool:
    """Take the name that was meant if it is one of several; False if the image itself is to go."""
    images = open_images(context)
    with images.lock():
        record = reread_image(images, record)
        names = [name.name for name in record.names]
        meant = find_meant_names(context, text, names)
        if not meant or len(names) == 1:
            return False
        for name in meant:
            images.remove_name(name)
    removed.untagged += meant
    return True


def remove_images(
    context: Context,
    records: Iterable[ImageRecord],
    removed: Removed,
    *,
    manager: Manager | None = None,
    force: bool = False,
    prune: bool = True,
) -> None:
    """Remove images with all of their names; see ``remove_image``. ``removed`` gets to know what went.

    Raises ``InUse`` for the first that containers use; those before it are gone then.
    """
    users = find_users(context, manager)
    mounted = set() if force else find_mounted(context)
    images = open_images(context)
    try:
        for record in records:
            in_use = users.of(record.id)
            if record.id.hex in mounted:
                raise InUse(
                    f"the image {record.short_id} is mounted",
                    hint="unmount it in its `usercontainer unshare`, or use --force",
                )
            if in_use:
                if not force or manager is None:
                    raise explain_use(record, in_use)
                _evict(context, manager, in_use)
            with images.lock():
                current = reread_image(images, record)
                seen = {name.name for name in record.names}
                new = [name.name for name in current.names if name.name not in seen]
                if new and not force:
                    raise InUse(f"the image {record.short_id} has just got the name {new[0]}")
                _remove_record(images, current, removed)
                if prune:
                    _remove_parents(images, record, users, removed)
                images.collect()
    finally:
        if removed.deleted:
            empty_trash(context)


def explain_use(record: ImageRecord, users: Sequence[Container]) -> InUse:
    """The error for an image that containers use; names them."""
    names = ", ".join(user.name for user in users)
    return InUse(
        f"the image {record.short_id} is used by {'container' if len(users) == 1 else 'containers'} {names}",
        hint="remove these first, or use --force",
    )


def _evict(context: Context, manager: Manager, users: Iterable[Container]) -> None:
    from usercontainerd.engine.containers.lifecycle import (
        find_own_definition,
        remove_container,
        stop_containers,
    )

    for user in users:
        if find_own_definition(context.paths, user.name) is None:
            remove_container(context, manager, user.name, force=True)
        else:
            stop_containers(manager, [user.name], timeout=0)


def _remove_record(images: ImageStore, record: ImageRecord, removed: Removed) -> None:
    images.forget(record)
    removed.untagged += [name.name for name in record.names]
    removed.deleted.append(record.id)


def _remove_parents(images: ImageStore, record: ImageRecord, users: ImageUsers, removed: Removed) -> None:
    """Remove the steps of a build that led to ``record``, which is gone, and to nothing else."""
    while True:
        family = ImageFamily(images, [*images.all(), record])
        parent = family.find_parent(record)
        if parent is None or parent.names or users.of(parent.id):
            return
        if any(child.id != record.id for child in family.find_children(parent)):
            return
        _remove_record(images, parent, removed)
        record = parent


def prune_images(
    context: Context,
    *,
    manager: Manager | None = None,
    everything: bool = False,
    is_meant: Callable[[ImageRecord], bool] | None = None,
) -> Removed:
    """Remove the images without a name and children, with ``everything`` all that no container uses.

    ``is_meant`` limits that further. Without it, what has come of images in part goes, too.
    """
    users, mounted = find_users(context, manager), find_mounted(context)
    images = open_images(context)
    removed = Removed()
    if is_meant is None:
        removed.partials = remove_partials(images.store)
    if not images.all():
        return removed
    with images.lock():
        while True:
            # Each round may leave further ones without children.
            records = images.all()
            family = ImageFamily(images, records)
            chosen = [
                record
                for record in records
                if not (users.of(record.id) or record.id.hex in mounted)
                and (everything or family.is_dangling(record))
                and (is_meant is None or is_meant(record))
            ]
            if not chosen:
                break
            for record in chosen:
                _remove_record(images, record, removed)
        images.collect()
    empty_trash(context)
    return removed


def remove_all_images(
    context: Context, *, manager: Manager | None = None, force: bool = False
) -> tuple[Removed, list[InUse]]:
    """Remove every image that no container uses, with ``force`` the containers and all images.

    Return what went, and an error for each image that stays.
    """
    removed = Removed()
    failures: list[InUse] = []
    for record in open_images(context).all():
        try:
            remove_images(context, [record], removed, manager=manager, force=force, prune=False)
        except InUse as error:
            failures.append(error)
        except NoSuchImage:
            continue  # another process was faster
    if open_images(context).store.has_indexes():
        from usercontainerd.engine.images.indexes import open_indexes

        for index_id in open_indexes(context).list_ids():
            _forget_index(context, index_id, removed, force=True)
    return removed, failures
