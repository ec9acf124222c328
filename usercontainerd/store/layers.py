"""Layers at rest: one directory each, by diffID, shared by all images that have it.

A layer is whole once it has its name: it is made in a stage and renamed. Its files are not synced one by
one, so after a power cut some could be empty: until a ``syncfs`` has covered them, ``layer.json`` holds the
boot in which the layer was made, and in another boot it does not count.
"""

from __future__ import annotations

import errno
import json
import os

from usercontainerd.base.errors import Busy, InUse, InvalidFormat
from usercontainerd.base.typedjson import parse_json
from usercontainerd.kernel.atomicfile import explain_write_error, sync_directory, write_atomic
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.store.layout import Store, check_record_version, sync_filesystem
from usercontainerd.store.locks import ObjectLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MAX_RECORD = 1024 * 1024


class LayerBlob:
    """A compressed form of a layer in which a registry had it; a push can offer the same again."""

    __slots__ = ("digest", "media_type", "size")

    def __init__(self, digest: Digest, size: int, media_type: str) -> None:
        self.digest = digest
        self.size = size
        self.media_type = media_type


class LayerRecord:
    """What ``layer.json`` says.

    ``size`` counts bytes of file content, ``boot`` is None once all is on disk.
    """

    __slots__ = ("blobs", "boot", "diff_id", "entries", "size", "warnings")

    def __init__(
        self,
        diff_id: Digest,
        *,
        size: int,
        entries: int,
        blobs: Sequence[LayerBlob] = (),
        warnings: Sequence[str] = (),
        boot: str | None = None,
    ) -> None:
        self.diff_id = diff_id
        self.size = size
        self.entries = entries
        self.blobs = tuple(blobs)
        self.warnings = tuple(warnings)
        self.boot = boot

    def render(self) -> bytes:
        """The file's content."""
        return json.dumps(
            {
                "version": 1,
                "diff_id": self.diff_id,
                "size": self.size,
                "entries": self.entries,
                "blobs": [
                    {"digest": b.digest, "size": b.size, "media_type": b.media_type} for b in self.blobs
                ],
                "warnings": self.warnings,
                "boot": self.boot,
            },
            indent=1,
        ).encode()


def parse_layer_record(data: bytes, path: str) -> LayerRecord:
    """Read what ``LayerRecord.render`` wrote. Raises ``InvalidFormat``."""
    document = parse_json(data, "layer", limit=_MAX_RECORD, source=path)
    check_record_version(document)
    return LayerRecord(
        parse_digest(document.get("diff_id").text()),
        size=document.get("size").integer(),
        entries=document.get("entries").integer(),
        blobs=[
            LayerBlob(
                parse_digest(blob.get("digest").text()),
                blob.get("size").integer(),
                blob.get("media_type").text(),
            )
            for blob in document.get("blobs").elements()
        ],
        warnings=document.get("warnings").texts(),
        boot=document.get("boot").optional_text(),
    )


def read_boot_id() -> str:
    """The kernel's name for this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


class LayerStore:
    """The layers of a store."""

    def __init__(self, store: Store, *, boot: str | None = None) -> None:
        self._store = store
        self._boot_id = boot

    @property
    def boot(self) -> str:
        """The current boot."""
        if self._boot_id is None:
            self._boot_id = read_boot_id()
        return self._boot_id

    def directory(self, diff_id: Digest) -> str:
        """Where the layer's files are, in overlayfs's form."""
        return f"{self._store.layer(diff_id)}/diff"

    def read(self, diff_id: Digest) -> LayerRecord | None:
        """Return the record of a layer that is there and whole, else None."""
        path = f"{self._store.layer(diff_id)}/layer.json"
        try:
            with open(path, "rb") as file:
                record = parse_layer_record(file.read(_MAX_RECORD + 1), path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, InvalidFormat):
            return None
        if record.diff_id != diff_id or (record.boot is not None and record.boot != self.boot):
            return None
        return record

    def has_recipe(self, diff_id: Digest) -> bool:
        """Tell whether the layer's exact archive can be made again from its files."""
        try:
            return os.stat(f"{self._store.layer(diff_id)}/recipe").st_size > 0
        except FileNotFoundError:
            return False

    def has_links(self, diff_id: Digest) -> bool:
        """Tell whether the layer has hard links to files of lower layers (see ``links``)."""
        return os.path.exists(f"{self._store.layer(diff_id)}/links")

    def has(self, diff_id: Digest) -> bool:
        """Tell whether the layer is there and whole."""
        return self.read(diff_id) is not None

    def lock(self, diff_id: Digest, *, exclusive: bool = True, wait: bool = True) -> ObjectLock:
        """A lock of the layer; use it as a context manager or with ``acquire`` and ``release``."""
        return ObjectLock(self._store.lock(f"layer-{diff_id.hex}"), exclusive=exclusive, wait=wait)

    def all(self) -> Iterator[Digest]:
        """Yield the diffIDs of all layer directories, whole or not."""
        try:
            names = os.listdir(self._store.layers)
        except FileNotFoundError:
            return
        for name in names:
            algorithm = "sha512" if len(name) == 128 else "sha256"
            try:
                yield parse_digest(f"{algorithm}:{name}")
            except InvalidFormat:
                continue

    def commit(self, staged: str, record: LayerRecord) -> None:
        """Give the staged directory (with ``diff`` in it) its place.

        The caller holds the lock exclusively.
        """
        record.boot = self.boot
        write_atomic(f"{staged}/layer.json", record.render(), sync=False)
        target = self._store.layer(record.diff_id)
        for _ in range(2):
            try:
                os.rename(staged, target)
                return
            except OSError as error:
                # What lies there is damaged, or was not on disk at the last power cut.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise explain_write_error(error, target) from error
                self._make_way(record.diff_id)

    def _make_way(self, diff_id: Digest) -> None:
        from usercontainerd.store.usage import find_layers_in_use, list_mounted_layers

        with self.lock_use():
            if diff_id.hex in list_mounted_layers(self._store.runtime):
                raise InUse(
                    "this layer is damaged, and an image is mounted from it",
                    where=self._store.layer(diff_id),
                    hint="unmount it in its `usercontainer unshare`, then pull again",
                )
            users = find_layers_in_use(self._store.runtime).get(diff_id.hex)
            if users:
                raise InUse(
                    f"this layer is damaged, and the container {users[0]} runs on it",
                    where=self._store.layer(diff_id),
                    hint=f"usercontainer stop {users[0]}, then pull again",
                )
            self.discard(diff_id)

    def lock_use(self, *, exclusive: bool = True) -> ObjectLock:
        """A lock that keeps others from mounting layers; who mounts some shares it with others who do."""
        from usercontainerd.store.usage import STARTING  # late: lists of images need none of this

        return ObjectLock(self._store.lock(STARTING), exclusive=exclusive)

    def add_blob(self, diff_id: Digest, blob: LayerBlob) -> None:
        """Note a further compressed form of a layer. The caller holds the lock of the image records."""
        record = self.read(diff_id)
        if record is not None and blob.digest not in [known.digest for known in record.blobs]:
            record.blobs = (*record.blobs, blob)
            write_atomic(f"{self._store.layer(diff_id)}/layer.json", record.render(), sync=False)

    def make_durable(self, diff_ids: Iterable[Digest]) -> None:
        """Bring layers that were made in this boot to disk for good: one syncfs(2) for all of them."""
        records = [r for r in (self.read(d) for d in diff_ids) if r is not None and r.boot is not None]
        if not records:
            return
        sync_filesystem(self._store.layers)
        for record in records:
            record.boot = None
            write_atomic(f"{self._store.layer(record.diff_id)}/layer.json", record.render(), sync=False)
        # Not all file systems write a file before the rename that gives it its name: what vouches for a layer
        # must not be empty after a power cut.
        sync_filesystem(self._store.layers)

    def discard(self, diff_id: Digest) -> bool:
        """Move a layer to the trash; False if it is not there. The caller holds the lock exclusively."""
        trash = f"{self._store.trash}/layer-{diff_id.hex[:16]}-{os.urandom(6).hex()}"
        try:
            os.rename(self._store.layer(diff_id), trash)
        except FileNotFoundError:
            return False
        return True

    def collect(self, needed: set[Digest], *, among: Iterable[Digest] | None = None) -> list[Digest]:
        """Move every layer (of ``among``) that is not ``needed``, and that nobody holds, to the trash;
        return them.

        What running containers and image mounts have in use stays. The caller holds the lock of the image records,
        so that none appears meanwhile.
        """
        unneeded = [d for d in (self.all() if among is None else among) if d not in needed]
        if not unneeded:
            return []
        from usercontainerd.store.usage import find_layers_in_use, list_mounted_layers

        gone = []
        with self.lock_use():
            used = {*find_layers_in_use(self._store.runtime), *list_mounted_layers(self._store.runtime)}
            for diff_id in unneeded:
                if diff_id.hex in used:
                    continue
                try:
                    with self.lock(diff_id, wait=False):
                        if self.discard(diff_id):
                            gone.append(diff_id)
                except Busy:
                    continue  # a pull needs it
        return gone

    def sync(self) -> None:
        """Bring the names of layers to disk."""
        sync_directory(self._store.layers)
