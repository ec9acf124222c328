"""Local indexes (manifest lists): one record each, which names lead to as they lead to images.

``indexes/HEX.json`` holds the index and, for each of its images, where it can be had if it is not here. HEX is drawn by
lot when the index is made and stays while it is edited.
"""

from __future__ import annotations

import json
import os

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.typedjson import parse_json
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.oci.digest import Digest, compute_digest, parse_digest
from usercontainerd.oci.index import ImageIndex, read_index, render_index, render_internal
from usercontainerd.store.layout import check_record_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usercontainerd.store.layout import Store
    from usercontainerd.store.records import ImageRecord

_MAX_RECORD = 8 * 1024 * 1024


class IndexRecord:
    """An index that is made here. ``created`` in seconds since the epoch; ``changed`` when it was edited last.

    ``sources`` tells for each image that came from a registry where: ``registry/repository``.
    """

    __slots__ = ("changed", "created", "id", "index", "sources")

    def __init__(
        self,
        id: Digest,  # noqa: A002 - as ImageRecord
        index: ImageIndex,
        *,
        created: int,
        changed: int,
        sources: Mapping[Digest, str] | None = None,
    ) -> None:
        self.id = id
        self.index = index
        self.created = created
        self.changed = changed
        self.sources = dict(sources or {})

    @property
    def document(self) -> bytes:
        """The index as it is pushed."""
        return render_index(self.index)

    @property
    def digest(self) -> Digest:
        """The digest that the index has as it is now."""
        return compute_digest(self.document)

    def render(self) -> bytes:
        """The file's content."""
        return json.dumps(
            {
                "version": 1,
                "id": self.id,
                "created": self.created,
                "changed": self.changed,
                "sources": self.sources,
                "index": render_internal(self.index),
            },
            indent=1,
        ).encode()


def parse_index_record(data: bytes, path: str) -> IndexRecord:
    """Read what ``IndexRecord.render`` wrote. Raises ``InvalidFormat``."""
    document = parse_json(data, "index", limit=_MAX_RECORD, source=path)
    check_record_version(document)
    return IndexRecord(
        parse_digest(document.get("id").text()),
        read_index(document.get("index")),
        created=document.get("created").integer(),
        changed=document.get("changed").integer(),
        sources={parse_digest(key): value for key, value in document.get("sources").text_map()},
    )


def find_host_image(record: IndexRecord, images: Iterable[ImageRecord]) -> ImageRecord | None:
    """Return the one of ``images`` that an index has for this machine; None if it is not among them."""
    from usercontainerd.oci.platform import choose_platform, plan_host_platform

    instances = record.index.instances
    offered = [each.platform.platform if each.has_platform else None for each in instances]
    number = choose_platform(plan_host_platform(os.uname().machine), offered)
    if number is None:
        return None
    digest = instances[number].digest
    return next(
        (
            image
            for image in images
            if image.manifest == digest or any(digest in name.digests for name in image.names)
        ),
        None,
    )


class IndexStore:
    """The indexes of a store; names are the image store's. Writers hold the lock of the records."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def path(self, index_id: Digest) -> str:
        """The file of an index, whether it is there or not."""
        return f"{self._store.indexes}/{index_id.hex}.json"

    def read(self, index_id: Digest) -> IndexRecord | None:
        """Return an index, None if there is none that can be read."""
        try:
            with open(self.path(index_id), "rb") as file:
                record = parse_index_record(file.read(_MAX_RECORD + 1), self.path(index_id))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, InvalidFormat):
            return None
        return record if record.id == index_id else None

    def list_ids(self) -> list[Digest]:
        """Return the IDs of all indexes of which there is a file."""
        try:
            files = sorted(os.listdir(self._store.indexes))
        except FileNotFoundError:
            return []
        ids = []
        for file in files:
            try:
                if file.endswith(".json"):
                    ids.append(parse_digest(f"sha256:{file.removesuffix('.json')}"))
            except InvalidFormat:
                continue  # not one of ours
        return ids

    def all(self) -> list[IndexRecord]:
        """Return all indexes that can be read."""
        return [record for record in map(self.read, self.list_ids()) if record is not None]

    def new_id(self) -> Digest:
        """An ID that no index has had."""
        return Digest(f"sha256:{os.urandom(32).hex()}")

    def write(self, record: IndexRecord) -> None:
        """Keep an index as it is now."""
        write_atomic(self.path(record.id), record.render())

    def remove(self, index_id: Digest) -> None:
        """Forget an index."""
        try:
            os.unlink(self.path(index_id))
        except FileNotFoundError:
            pass
