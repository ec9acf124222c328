"""What is wrong with a single file of the store, in words; nothing here waits for what is not a regular file."""

from __future__ import annotations

import os
import stat

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.oci.digest import Digest, new_hash
from usercontainerd.store.blobs import MAX_BLOB
from usercontainerd.store.layers import parse_layer_record
from usercontainerd.store.layout import Store

_MAX_RECORD = 1024 * 1024
_PIECE = 1024 * 1024


def explain_layer(store: Store, diff_id: Digest) -> str:
    """Return why a layer that does not count as whole does not."""
    path = f"{store.layer(diff_id)}/layer.json"
    try:
        record = parse_layer_record(read_file(path), path)
    except FileNotFoundError:
        return "its record is missing"
    except (OSError, InvalidFormat):
        return "its record cannot be read"
    if record.diff_id != diff_id:
        return "its record is that of another layer"
    return "it had not reached the disk when the machine went down"


def examine_blob(path: str, digest: Digest, *, deep: bool) -> str:
    """Return what is wrong with a blob, "" if nothing; a large one is read only if ``deep``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return "it is not a file"
        if status.st_size > MAX_BLOB and not deep:
            return ""
        state = new_hash(digest.algorithm)
        while piece := os.read(fd, _PIECE):
            state.update(piece)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    finally:
        os.close(fd)
    return "" if state.hexdigest() == digest.hex else "its content is not what its name says"


def read_file(path: str, limit: int = _MAX_RECORD) -> bytes:
    """Read a regular file; anything else would block, or is not ours. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        return file.read(limit + 1)
