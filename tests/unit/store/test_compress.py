"""Compressing layers: other programs' decompressors take it, and it is the same each time."""

import gzip
import random
import zlib

import pytest

from usercontainerd.base.errors import HostError, InvalidArgument
from usercontainerd.store.compress import BLOCK, Compression, open_compressor

TEXT = b"".join(b"%d little lines that repeat themselves\n" % (n % 5000) for n in range(60_000))


def compressed(
    data: bytes, step: int, how: Compression = Compression.GZIP, level: int | None = None
) -> bytes:
    result: list[bytes] = []
    compressor = open_compressor(how, result.append, level)
    for at in range(0, len(data), step):
        compressor.write(data[at : at + step])
    compressor.finish()
    compressor.close()
    return b"".join(result)


@pytest.mark.parametrize(
    "data", [b"", b"x", TEXT, TEXT[:BLOCK], TEXT[: 2 * BLOCK + 1], random.Random(1).randbytes(BLOCK + 9)]
)
def test_gzip(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = compressed(data, 100_000)
    assert gzip.decompress(blob) == data
    assert blob[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for threads in (1, 5):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        assert compressed(data, 77_777) == blob


def test_blocks_cost_little() -> None:
    assert len(compressed(TEXT, 1 << 20)) < 1.02 * len(zlib.compress(TEXT, 6))


def test_levels() -> None:
    assert len(compressed(TEXT, 1 << 20, level=9)) < len(compressed(TEXT, 1 << 20, level=1))
    for how, level in (
        (Compression.GZIP, 0),
        (Compression.GZIP, 10),
        (Compression.ZSTD, 23),
        (Compression.NONE, 1),
    ):
        with pytest.raises(InvalidArgument, match=f"{how} has no level {level}"):
            compressed(b"", 1, how, level)


def test_none() -> None:
    assert compressed(TEXT, 999, Compression.NONE) == TEXT


def test_zstd() -> None:
    zstandard = pytest.importorskip("zstandard")
    blob = compressed(TEXT, 10_000, Compression.ZSTD)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(blob) == TEXT
    assert compressed(TEXT, 10_000, Compression.ZSTD) == blob


def test_no_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "compression.zstd", None)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(HostError, match="cannot write zstd"):
        compressed(b"", 1, Compression.ZSTD)
