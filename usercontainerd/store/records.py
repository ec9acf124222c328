"""The files that make images: a record for each image and one for each of its names, small and in JSON."""

from __future__ import annotations

import json

from usercontainerd.base.typedjson import parse_json
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.oci.reference import Reference, parse_reference
from usercontainerd.store.layout import check_record_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RECORD = 1024 * 1024
MAX_FORMER_NAMES = 100
_MAX_FILE_NAME = 200


class ImageRecord:
    """An image. ``size`` is the bytes of file content of all layers, ``names`` where it is known (see
    ``NameRecord``).

    ``id`` is the digest of the configuration, ``manifest`` of the manifest by which it was first pulled,
    ``created`` as the image says, ``pulled`` seconds since the epoch. ``former`` are names that it had, the one
    lost last first.
    """

    __slots__ = ("created", "former", "id", "layers", "manifest", "names", "platform", "pulled", "size")

    def __init__(
        self,
        id: Digest,  # noqa: A002 - everybody calls it so
        *,
        manifest: Digest,
        layers: Sequence[Digest],
        size: int,
        created: str,
        platform: str,
        pulled: int,
        names: Sequence[NameRecord] = (),
        former: Sequence[str] = (),
    ) -> None:
        self.id = id
        self.manifest = manifest
        self.layers = tuple(layers)
        self.size = size
        self.created = created
        self.platform = platform
        self.pulled = pulled
        self.names = tuple(names)
        self.former = tuple(former)

    @property
    def short_id(self) -> str:
        """The twelve digits that people copy."""
        return self.id.hex[:12]

    @property
    def name_history(self) -> list[str]:
        """All names that the image has or had."""
        return list(dict.fromkeys((*(name.name for name in self.names), *self.former)))

    def render(self) -> bytes:
        """The file's content; names lie elsewhere."""
        return json.dumps(
            {
                "version": 1,
                "id": self.id,
                "manifest": self.manifest,
                "layers": self.layers,
                "size": self.size,
                "created": self.created,
                "platform": self.platform,
                "pulled": self.pulled,
                **({"former": self.former} if self.former else {}),
            },
            indent=1,
        ).encode()


class NameRecord:
    """A name of an image: ``registry/repository:tag`` or ``…@digest``.

    ``digests`` are those by which the registry knows it there: of the manifest, and of the index that led to
    it.
    """

    __slots__ = ("digests", "image", "name")

    def __init__(self, name: str, image: Digest, digests: Sequence[Digest]) -> None:
        self.name = name
        self.image = image
        self.digests = tuple(digests)

    @property
    def reference(self) -> Reference:
        """The name, parsed."""
        return parse_reference(self.name)

    def render(self) -> bytes:
        """The file's content."""
        return json.dumps(
            {"version": 1, "name": self.name, "image": self.image, "digests": self.digests}, indent=1
        ).encode()


def parse_image_record(data: bytes, path: str) -> ImageRecord:
    """Read what ``ImageRecord.render`` wrote. Raises ``InvalidFormat``."""
    document = parse_json(data, "image", limit=MAX_RECORD, source=path)
    check_record_version(document)
    return ImageRecord(
        parse_digest(document.get("id").text()),
        manifest=parse_digest(document.get("manifest").text()),
        layers=[parse_digest(text) for text in document.get("layers").texts()],
        size=document.get("size").integer(),
        created=document.get("created").text(""),
        platform=document.get("platform").text(""),
        pulled=document.get("pulled").integer(0),
        former=document.get("former").texts(limit=MAX_FORMER_NAMES),
    )


def parse_name_record(data: bytes, path: str) -> NameRecord:
    """Read what ``NameRecord.render`` wrote. Raises ``InvalidFormat``."""
    document = parse_json(data, "name", limit=MAX_RECORD, source=path)
    check_record_version(document)
    return NameRecord(
        document.get("name").text(),
        parse_digest(document.get("image").text()),
        [parse_digest(text) for text in document.get("digests").texts()],
    )


def name_file(name: str) -> str:
    """Return the file name for an image name: readable, and a hash where that would be too long."""
    readable = name.replace("/", "%")
    if len(readable) <= _MAX_FILE_NAME:
        return f"{readable}.json"
    import hashlib

    return f"{readable[:100]}%%{hashlib.sha256(name.encode()).hexdigest()}.json"
