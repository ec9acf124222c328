"""Use case: take over images of Podman's own store, as they are there: names, digests, manifests.

Every layer goes through its exact archive and our own unpacking, so nothing is taken that does not have the digest that
it should have. Podman's store is only read.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from usercontainerd.base.errors import InvalidReference, NoSuchImage, UsercontainerError
from usercontainerd.engine.archives.podman_store import (
    MANIFEST,
    PodmanSource,
    PodmanStore,
    StoredImage,
    find_podman_store,
)
from usercontainerd.engine.images.local import ignore_progress, open_images, start_worker
from usercontainerd.engine.registries.admission import read_admission
from usercontainerd.engine.transfers.pulling import Pull
from usercontainerd.oci.digest import Digest, check_digest, compute_digest, is_digest
from usercontainerd.oci.manifest import Index, Manifest, parse_manifest
from usercontainerd.oci.reference import DOCKER_HUB, Reference, parse_reference
from usercontainerd.store.layers import LayerBlob
from usercontainerd.store.records import NameRecord
from usercontainerd.trust.scopes import identify_in_storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from usercontainerd.engine.archives.podman_store import StoredLayer
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.engine.registries.admission import Admission
    from usercontainerd.store.records import ImageRecord
    from usercontainerd.store.worker import Worker

_INDEX_KEY = "manifest-"
_CONFIGURATION = "containers/storage.conf"
_SYSTEM = ("/etc", "/usr/share")


class Imported:
    """What became of one image: its record, or the error that kept it out."""

    __slots__ = ("error", "id", "names", "record")

    def __init__(
        self,
        id: str,  # noqa: A002
        names: Sequence[str],
        record: ImageRecord | None = None,
        error: UsercontainerError | None = None,
    ) -> None:
        self.id = id
        self.names = tuple(names)
        self.record = record
        self.error = error


def import_storage(
    context: Context,
    words: Sequence[str] = (),
    *,
    root: str | None = None,
    progress: Progress = ignore_progress,
    signature_policy: str | None = None,
) -> Iterator[Imported]:
    """Take over the images that ``words`` name (or all), and yield each when it is done, or has failed.

    ``root`` is Podman's graphroot if that is not where storage.conf(5) says. Raises ``InvalidArgument`` if there is no
    store, ``NoSuchImage`` if an image is not there.
    """
    driver = None
    if root is None:
        root, driver = locate_graphroot(context)
    store = find_podman_store(os.path.abspath(root), driver)
    chosen = choose_stored(store.read_images(), words)
    layers = store.read_layers()
    admission = read_admission(context, signature_policy)
    with ExitStack() as stack:
        workers: list[Worker] = []

        def start() -> Worker:
            if not workers:
                workers.append(stack.enter_context(start_worker(context)))
            return workers[0]

        for image in chosen:
            try:
                record = _import_image(
                    context, store, image, layers, start=start, admission=admission, progress=progress
                )
                yield Imported(image.id, image.names, record)
            except UsercontainerError as error:
                yield Imported(image.id, image.names, error=error)


def _import_image(
    context: Context,
    store: PodmanStore,
    image: StoredImage,
    layers: dict[str, StoredLayer],
    *,
    start: Callable[[], Worker],
    admission: Admission,
    progress: Progress,
) -> ImageRecord:
    source = PodmanSource(store, image, layers, start)
    names = [name for name in map(_parse_name, image.names) if name is not None]
    identity = identify_in_storage(store.driver, store.root, names[0] if names else None, image.id)
    title = names[0] if names else Reference("", image.id[:12])
    with Pull(
        context, source, title, approve=admission.for_identity(identity), progress=progress, names=()
    ) as pull:
        record = pull.run()
    _finish_records(context, store, image, names, record)
    return record


def _finish_records(
    context: Context, store: PodmanStore, image: StoredImage, names: Sequence[Reference], record: ImageRecord
) -> None:
    """Give the image its names, with the index that has led to it, and note in which form its layers once came."""
    images = open_images(context)
    with images.lock():
        own = store.read_big_data(image, MANIFEST)
        manifest = parse_manifest(own, None)
        digests: list[Digest] = [compute_digest(own)]
        for data in _read_indexes(store, image, digests[0]):
            images.blobs.add(data)
            digests.insert(0, compute_digest(data))
        for name in names:
            images.add_name(NameRecord(str(name), record.id, digests))
        if isinstance(manifest, Manifest) and len(manifest.layers) == len(record.layers):
            for diff_id, layer in zip(record.layers, manifest.layers, strict=True):
                images.layers.add_blob(diff_id, LayerBlob(layer.digest, layer.size, layer.media_type))


def _read_indexes(store: PodmanStore, image: StoredImage, manifest: Digest) -> Iterator[bytes]:
    """The index by which the image came, if it did."""
    for key in image.keys:
        text = key.removeprefix(_INDEX_KEY)
        if not key.startswith(_INDEX_KEY) or not is_digest(text) or text == manifest:
            continue
        data = store.read_big_data(image, key)
        try:
            check_digest(data, Digest(text), what="index")
            document = parse_manifest(data, None)
        except UsercontainerError:
            continue
        if isinstance(document, Index) and manifest in [entry.digest for entry in document.manifests]:
            yield data
            return


def _parse_name(text: str) -> Reference | None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return None
    return (reference.with_registry(DOCKER_HUB) if reference.is_short else reference).with_default_tag()


def choose_stored(images: Sequence[StoredImage], words: Sequence[str]) -> list[StoredImage]:
    """Return the images that are meant by name or ID prefix, in the store's order; all without ``words``. Pure.

    A short name means one of localhost, or else any that ends so. Raises ``NoSuchImage``, ``InvalidReference``.
    """
    if not words:
        return list(images)
    chosen: set[str] = set()
    for word in words:
        found = _find_stored(images, word)
        if not found:
            raise NoSuchImage(f"Podman has no image {word!r}")
        if len(found) > 1:
            raise InvalidReference(f"{word!r} may mean several images of Podman's", hint="give the full name")
        chosen.update(found)
    return [image for image in images if image.id in chosen]


def _find_stored(images: Sequence[StoredImage], word: str) -> set[str]:
    reference: Reference | None = None
    try:
        reference = parse_reference(word)
    except InvalidReference:
        pass
    if reference is not None:
        wanted = str(reference.with_default_tag())
        for exact in (wanted, f"localhost/{wanted}"):
            if found := {image.id for image in images if exact in image.names}:
                return found
        if reference.is_short and (
            found := {i.id for i in images for name in i.names if name.endswith(f"/{wanted}")}
        ):
            return found
    prefix = word.removeprefix("sha256:")
    return {image.id for image in images if len(prefix) > 1 and image.id.startswith(prefix)}


def locate_graphroot(context: Context) -> tuple[str, str | None]:
    """Return where Podman keeps a user's images, and its driver if that is set, as storage.conf(5) has it.

    The user's own file sets graphroot; the system's only a pattern for all users. Raises ``InvalidFormat``.
    """
    environment = dict(context.environment)
    home_config = os.path.dirname(context.paths.config)
    default = f"{environment.get('XDG_DATA_HOME') or f'{context.home}/.local/share'}/containers/storage"
    for directory in dict.fromkeys((home_config, f"{context.home}/.config", *_SYSTEM)):
        table = _read_storage_table(f"{directory}/{_CONFIGURATION}")
        if table is None:
            continue
        own = directory not in _SYSTEM
        root = (table.get("graphroot") if own else None) or table.get("rootless_storage_path")
        driver = table.get("driver")
        expanded = _expand(root, context) if isinstance(root, str) and root else default
        return expanded, driver if isinstance(driver, str) and driver else None
    return default, None


def _read_storage_table(path: str) -> dict[str, object] | None:
    import tomllib

    from usercontainerd.base.errors import InvalidFormat

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("storage", {})
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidFormat(f"cannot be read: {error}", where=path) from error
    return table if isinstance(table, dict) else {}


def _expand(text: str, context: Context) -> str:
    """The variables that storage.conf(5) knows in paths."""
    for name, value in (("HOME", context.home), ("UID", str(context.uid)), ("USER", context.user)):
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return text
