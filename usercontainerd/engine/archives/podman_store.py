"""The store of Podman, Buildah and Skopeo (containers/storage), read and never written::

    overlay-images/images.json        all images: ID, names, uppermost layer, which big data there are
    overlay-images/ID/KEY             big data: manifests, the configuration; KEY is in base64 if it has odd characters
    overlay-layers/layers.json        all layers: ID, parent, diffID, bytes of the archive
    overlay-layers/ID.tar-split.gz    what the archive has beside the contents of files (see ``store.tarsplit``)
    overlay/ID/diff                   the files

With the driver vfs it is ``vfs-images``, ``vfs-layers`` and ``vfs/dir/ID``. The lists are read under their locks, as
their readers do it. What is in them is checked like everything else: by digests.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
from contextlib import contextmanager

from usercontainerd.base.errors import InvalidArgument, InvalidFormat, NoSuchImage
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.engine.archives.members import copy_checked
from usercontainerd.kernel.smallfiles import read_small_file
from usercontainerd.oci.digest import Digest, check_digest, compute_digest, is_digest
from usercontainerd.oci.manifest import MAX_LAYERS, MAX_MANIFEST, Descriptor, FetchedManifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from usercontainerd.store.worker import Worker

DRIVERS = ("overlay", "vfs")
MAX_LIST = 256 << 20
MANIFEST = "manifest"
TAR_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ID = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_PLAIN_KEY = re.compile(r"[0-9a-z.]+\Z", re.ASCII)
_PIECE = 512 * 1024


class StoredImage:
    """An image of that store: ``keys`` are its big data, ``layer`` the uppermost layer ("" without any)."""

    __slots__ = ("id", "keys", "layer", "names")

    def __init__(self, id: str, names: Sequence[str], layer: str, keys: Sequence[str]) -> None:  # noqa: A002
        self.id = id
        self.names = tuple(names)
        self.layer = layer
        self.keys = tuple(keys)


class StoredLayer:
    """A layer of that store; ``size`` counts the bytes of its archive."""

    __slots__ = ("diff_id", "id", "incomplete", "parent", "size")

    def __init__(self, id: str, parent: str, diff_id: str, size: int, *, incomplete: bool) -> None:  # noqa: A002
        self.id = id
        self.parent = parent
        self.diff_id = diff_id
        self.size = size
        self.incomplete = incomplete


class PodmanStore:
    """The store below ``root``."""

    def __init__(self, root: str, driver: str) -> None:
        self.root = root
        self.driver = driver

    def read_images(self) -> list[StoredImage]:
        """Return all images. Raises ``InvalidFormat``."""
        return [_parse_image(value) for value in self._read_list("images")]

    def read_layers(self) -> dict[str, StoredLayer]:
        """Return all layers by their IDs. Raises ``InvalidFormat``."""
        layers = (_parse_layer(value) for value in self._read_list("layers"))
        return {layer.id: layer for layer in layers}

    def _read_list(self, kind: str) -> list[JsonValue]:
        directory = f"{self.root}/{self.driver}-{kind}"
        with _locked_shared(f"{directory}/{kind}.lock"):
            data = read_small_file(f"{directory}/{kind}.json", MAX_LIST, InvalidFormat)
        if data is None:
            return []
        document = parse_json(data, kind, limit=MAX_LIST, source=f"{directory}/{kind}.json")
        return list(document.elements(limit=1_000_000))

    def read_big_data(self, image: StoredImage, key: str) -> bytes:
        """Return a piece of an image's data. Raises ``InvalidFormat``."""
        path = f"{self.root}/{self.driver}-images/{image.id}/{name_big_data(key)}"
        data = read_small_file(path, MAX_MANIFEST, InvalidFormat) if key in image.keys else None
        if data is None:
            raise InvalidFormat(f"Podman's store has no {key!r} of this image", where=path)
        return data

    def files(self, layer: StoredLayer) -> tuple[str, str]:
        """The directory of a layer's files, and its tar-split file."""
        files = f"overlay/{layer.id}/diff" if self.driver == "overlay" else f"vfs/dir/{layer.id}"
        return f"{self.root}/{files}", f"{self.root}/{self.driver}-layers/{layer.id}.tar-split.gz"


class PodmanSource:
    """One image of that store as a pull takes it. ``layers`` are all of the store, ``start`` starts a worker."""

    def __init__(
        self,
        store: PodmanStore,
        image: StoredImage,
        layers: dict[str, StoredLayer],
        start: Callable[[], Worker],
    ) -> None:
        self._store = store
        self._image = image
        self._start = start
        self._where = f"Podman's image {image.id[:12]}"
        self._layers = {Digest(layer.diff_id): layer for layer in self._list_layers(layers)}

    def _list_layers(self, layers: dict[str, StoredLayer]) -> Iterator[StoredLayer]:
        """From the uppermost down."""
        at = self._image.layer
        for _ in range(MAX_LAYERS + 1):
            if not at:
                return
            layer = layers.get(at)
            if layer is None:
                raise InvalidFormat(f"its layer {at[:12]} is not in Podman's store", where=self._where)
            if layer.incomplete:
                raise InvalidFormat(f"Podman has not finished its layer {at[:12]}", where=self._where)
            if is_digest(layer.diff_id):
                yield layer
            at = layer.parent
        raise InvalidFormat("it has too many layers", where=self._where)

    def close(self) -> None:
        """Nothing stays open."""

    def fetch_manifest(self, wanted: str) -> FetchedManifest:
        """Return the manifest of the image, whatever index has led to it."""
        data = self._store.read_big_data(self._image, MANIFEST)
        digest = compute_digest(data)
        if is_digest(wanted) and wanted != digest:
            raise NoSuchImage(f"there is no manifest {wanted}", where=self._where)
        return FetchedManifest(data, digest, "", self._where)

    def fetch_blob(self, blob: Descriptor, *, limit: int) -> bytes:
        """Return the configuration, checked."""
        data = self._store.read_big_data(self._image, blob.digest)
        if len(data) > limit:
            raise InvalidFormat(f"{blob.digest} has more than the {limit} bytes allowed", where=self._where)
        check_digest(data, blob.digest, what="configuration", where=self._where)
        return data

    def describe_layers(self, diff_ids: Sequence[Digest]) -> list[Descriptor]:
        """The archives that there are in place of compressed blobs. Raises ``InvalidFormat`` if one is not there."""
        for diff_id in diff_ids:
            if diff_id not in self._layers:
                raise InvalidFormat(f"Podman's store lacks its layer {diff_id}", where=self._where)
        return [Descriptor(TAR_LAYER, diff_id, self._layers[diff_id].size) for diff_id in diff_ids]

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hand the exact archive of a layer to ``write``. Raises ``DigestMismatch`` if it is another now."""
        copy_checked(self._read_archive(blob.digest), blob, write, progress, self._where)

    def _read_archive(self, diff_id: Digest) -> Iterator[bytes]:
        directory, split = self._store.files(self._layers[diff_id])
        try:
            archive = self._start().start_join(directory, split)
        except OSError as error:
            raise InvalidFormat(
                f"a layer cannot be read: {error.strerror}", where=str(error.filename)
            ) from error
        with archive:
            while data := archive.read(_PIECE):
                yield data


def find_podman_store(root: str, driver: str | None = None) -> PodmanStore:
    """Return the store at ``root``. Raises ``InvalidArgument`` if there is none, or none that is understood."""
    found = [d for d in DRIVERS if os.path.exists(f"{root}/{d}-images/images.json")]
    if driver in found:
        return PodmanStore(root, driver)
    if not found:
        raise InvalidArgument(
            "there are no images of Podman's here",
            where=root,
            hint="its drivers overlay and vfs are understood",
        )
    return PodmanStore(root, found[0])


def name_big_data(key: str) -> str:
    """The file name of a piece of an image's data. Pure. Raises ``InvalidFormat`` for one that cannot be a file's."""
    if _PLAIN_KEY.match(key) and key.strip("."):
        return key
    name = f"={base64.b64encode(key.encode()).decode()}"
    if "/" in name or len(name) > 255:
        raise InvalidFormat(f"Podman's store cannot have a file for {key[:80]!r}")
    return name


def _parse_image(value: JsonValue) -> StoredImage:
    return StoredImage(
        _parse_id(value.get("id")),
        value.get("names").texts(),
        "" if value.get("layer").text("") == "" else _parse_id(value.get("layer")),
        value.get("big-data-names").texts(),
    )


def _parse_layer(value: JsonValue) -> StoredLayer:
    flags = value.get("flags")
    return StoredLayer(
        _parse_id(value.get("id")),
        "" if value.get("parent").text("") == "" else _parse_id(value.get("parent")),
        value.get("diff-digest").text(""),
        value.get("diff-size").integer(0),
        incomplete=not flags.is_null and flags.has("incomplete") and flags.get("incomplete").raw is True,
    )


def _parse_id(value: JsonValue) -> str:
    """IDs become parts of paths."""
    text = value.text()
    if not _ID.match(text):
        value.fail(f"{text[:80]!r} is not an ID")
    return text


@contextmanager
def _locked_shared(path: str) -> Iterator[None]:
    """Hold a reader's lock while the block lasts; without the file there is no writer yet."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)
