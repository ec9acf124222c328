"""tar-split files of other tools: read in full, or refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
from typing import Any

import pytest

from usercontainerd.base.errors import StoreError
from usercontainerd.store import tarsplit
from usercontainerd.store.inflate import Codecs
from usercontainerd.store.tarsplit import read_entries


def encode(*entries: Any) -> bytes:
    return gzip.compress(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))


def segment(data: bytes) -> dict[str, Any]:
    return {"type": 2, "payload": base64.b64encode(data).decode(), "position": 0}


def read(data: bytes) -> list[tuple[bytes, bytes | None, int]]:
    return list(read_entries(io.BytesIO(data).read, Codecs()))


def test_entries() -> None:
    name = base64.b64encode(b"\xff/x").decode()
    data = encode(
        segment(b"header"),
        {"type": 1, "name": "bin/", "payload": None, "position": 1},
        {"type": 1, "name": "/bin/sh", "size": 7, "payload": "AAAA", "position": 2},
        {"type": 1, "name_raw": name, "size": 1, "payload": "AAAA", "position": 3},
        {"type": 2, "payload": None, "position": 4},
        segment(bytes(2_000_000)),
    )
    assert read(data) == [
        (b"header", None, 0),
        (b"", b"bin/sh", 7),
        (b"", b"\xff/x", 1),
        (b"", None, 0),
        (bytes(2_000_000), None, 0),
    ]
    # The last line may lack its end.
    assert read(gzip.compress(json.dumps(segment(b"x")).encode())) == [(b"x", None, 0)]


@pytest.mark.parametrize(
    "data",
    [
        encode({"type": 3}),
        encode({"payload": "AAAA"}),
        encode({"type": 1, "size": 1}),
        encode({"type": 1, "size": 1, "name": ""}),
        encode({"type": 1, "size": 1, "name": "/"}),
        encode({"type": 1, "size": 1, "name": "a\0b"}),
        encode({"type": 1, "size": -1, "name": "x"}),
        encode({"type": 1, "size": "1", "name": "x"}),
        encode({"type": 2, "payload": "A"}),
        encode({"type": 2, "payload": 7}),
        encode([]),
        encode("x"),
        gzip.compress(b"{\n"),
        gzip.compress(b"[" * 100_000 + b"\n"),
        gzip.compress(b"\xff\n"),
        encode(segment(os.urandom(1000)))[:-30],
        b"\x1f\x8b\x08\x00damaged",
    ],
)
def test_damaged(data: bytes) -> None:
    with pytest.raises(StoreError, match="tar-split file is damaged"):
        read(data)


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarsplit, "MAX_LINE", 1 << 20)
    with pytest.raises(StoreError, match="damaged"):
        read(gzip.compress(b'{"type": 2, "payload": "' + b"A" * (4 << 20)))
