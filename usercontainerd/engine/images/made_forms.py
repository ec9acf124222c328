"""What layers became when they were compressed here: the same each time, so the next push can ask for it beforehand.

Small files in the cache, each saying which blob comes of a layer compressed in one way. One that is wrong or missing
costs time, no more: a registry is asked for the blob, and whoever pulls it compares it with the diffID.
"""

from __future__ import annotations

import json

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.typedjson import parse_json
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.oci.manifest import MAX_SIZE, Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths
    from usercontainerd.oci.conversion import ManifestForm
    from usercontainerd.store.compress import Compression

_MAX_FILE = 4096


class MadeForms:
    """The forms of layers that were made for pushes of this user."""

    def __init__(self, paths: Paths) -> None:
        self._directory = f"{paths.cache}/made-layers"

    def find(
        self, diff_id: Digest, compression: Compression, level: int | None, form: ManifestForm
    ) -> Descriptor | None:
        """Return the blob that a layer became; None if it is not known."""
        path = self._path(diff_id, compression, level, form)
        try:
            with open(path, "rb") as file:
                document = parse_json(file.read(_MAX_FILE + 1), "layer", limit=_MAX_FILE, source=path)
            return Descriptor(
                document.get("media_type").text(),
                parse_digest(document.get("digest").text(), where=path),
                document.get("size").integer(maximum=MAX_SIZE),
            )
        except (OSError, UsercontainerError):
            return None

    def remember(
        self,
        diff_id: Digest,
        compression: Compression,
        level: int | None,
        form: ManifestForm,
        *,
        made: Descriptor,
    ) -> None:
        """Note what a layer became; that it cannot be noted is no failure."""
        text = json.dumps({"media_type": made.media_type, "digest": made.digest, "size": made.size})
        try:
            make_private_directories(self._directory)
            write_atomic(self._path(diff_id, compression, level, form), text.encode(), sync=False)
        except (OSError, UsercontainerError):
            pass

    def _path(self, diff_id: Digest, compression: Compression, level: int | None, form: ManifestForm) -> str:
        return f"{self._directory}/{diff_id.hex}-{compression}-{'default' if level is None else level}-{form}"
