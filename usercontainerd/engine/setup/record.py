"""What a set-up has put where, with digests: so that its removal takes exactly that, and nothing that has changed.

One JSON file. While files are being written it has the digests of before and after, so that a set-up that is
interrupted knows its files again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.records import dataclass, field
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.kernel.smallfiles import read_small_file

FORMAT = 1
_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """``files`` have the digests that each may have, ``links`` what each leads to, ``directories`` were made for it."""

    version: str
    prefix: str
    package: str
    interpreter: str
    python: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()


def hash_content(content: bytes) -> str:
    """The digest that is recorded."""
    return hashlib.sha256(content).hexdigest()


def read_record(path: str) -> Record | None:
    """Return what was set up, None if nothing was. Raises ``InvalidFormat``."""
    data = read_small_file(path, _LIMIT, InvalidFormat)
    if data is None:
        return None
    try:
        return parse_record(parse_json(data, "set-up", limit=_LIMIT, source=path))
    except InvalidFormat as error:
        error.hint = (
            error.hint
            or "remove this file: `usercontainer setup --force` puts all in place and writes it anew"
        )
        raise


def parse_record(value: JsonValue) -> Record:
    """Return what the document means. Raises ``InvalidFormat``."""
    if value.get("format").integer() != FORMAT:
        value.get("format").fail(f"only {FORMAT} is known: it was made by another version")
    return Record(
        value.get("version").text(),
        value.get("prefix").text(),
        value.get("package").text(),
        value.get("interpreter").text(),
        value.get("python").text(),
        {path: digests.texts() for path, digests in value.get("files").items()},
        dict(value.get("links").text_map()),
        value.get("directories").texts(),
    )


def render_record(record: Record) -> bytes:
    """Return the file's bytes."""
    document = {
        "format": FORMAT,
        "version": record.version,
        "prefix": record.prefix,
        "package": record.package,
        "interpreter": record.interpreter,
        "python": record.python,
        "files": {path: list(digests) for path, digests in sorted(record.files.items())},
        "links": dict(sorted(record.links.items())),
        "directories": sorted(record.directories),
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def write_record(path: str, record: Record) -> None:
    """Replace the file. Raises ``StoreError``."""
    write_atomic(path, render_record(record))
    os.chmod(path, 0o644)
