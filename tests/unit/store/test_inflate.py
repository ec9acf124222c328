"""Decompression: every form that registries hold, damage, and bombs."""

import bz2
import functools
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.oci.digest import compute_digest
from usercontainerd.store.inflate import PIECE, Codecs, inflate
from usercontainerd.store.pipeline import Bounds, LayerStream

DATA = os.urandom(300_000) + b"layer " * 200_000


def reader(data: bytes, step: int = 1 << 20) -> Callable[[int], bytes]:
    stream = io.BytesIO(data)
    return lambda count: stream.read(min(count, step))


@functools.cache
def codecs() -> list[Codecs]:
    """With what is installed, and with the standard library alone."""
    plain = Codecs()
    plain.gzip = zlib
    return [Codecs(), plain]


def expand(data: bytes, step: int = 1 << 20, which: int = 0) -> bytes:
    pieces = list(inflate(reader(data, step), codecs()[which]))
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_gzip(step: int, which: int) -> None:
    data = DATA[290_000:310_000] if step == 1 else DATA
    assert expand(gzip.compress(data), step, which) == data
    # members one after the other (pigz -i, eStargz), zeros at the end
    half = len(data) // 2
    both = gzip.compress(data[:half]) + gzip.compress(data[half:])
    assert expand(both, step, which) == data
    assert expand(both + b"\0" * 100, step, which) == data


def test_plain() -> None:
    assert expand(DATA, 1000) == DATA
    assert expand(b"") == b""
    assert expand(b"\x1f") in (b"\x1f",)


def zstandard() -> object:
    return pytest.importorskip("zstandard")


def test_zstd() -> None:
    if codecs()[0].zstd is None:
        pytest.skip("no zstd here")
    module = zstandard()
    compressed = module.ZstdCompressor().compress(DATA)  # type: ignore[attr-defined]
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    assert expand(compressed) == DATA
    assert expand(compressed, 1000) == DATA
    assert expand(compressed + skippable + compressed) == DATA * 2
    bomb = module.ZstdCompressor().compress(bytes(50_000_000))  # type: ignore[attr-defined]
    assert len(expand(bomb)) == 50_000_000
    with pytest.raises(InvalidFormat, match="zstd data is damaged"):
        expand(compressed[:20] + b"\xff" * 200_000)


def test_without_zstd() -> None:
    without = Codecs()
    without.zstd = None
    with pytest.raises(HostError, match=r"zstd.*python3-zstandard"):
        list(inflate(reader(b"\x28\xb5\x2f\xfd" + bytes(100)), without))


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_gzip(which: int) -> None:
    compressed = gzip.compress(DATA, mtime=0)
    for damaged, message in (
        (compressed[:-1], "ends too early"),
        (compressed[:1000], "ends too early"),
        (compressed[:-8] + bytes(8), "damaged"),
        (compressed[:500] + bytes(500) + compressed[1000:], "damaged"),
        (compressed + b"garbage", "something other than gzip data follows"),
        (compressed + bytes(5) + b"garbage", "something other than gzip data follows"),
    ):
        with pytest.raises(InvalidFormat, match=message):
            expand(damaged, which=which)


@pytest.mark.parametrize(
    ("data", "name"),
    [(bz2.compress(b"x"), "bzip2"), (lzma.compress(b"x"), "xz"), (b"\x04\x22\x4d\x18aaaa", "lz4")],
)
def test_other_compressions(data: bytes, name: str) -> None:
    with pytest.raises(InvalidFormat, match=f"compressed with {name}"):
        expand(data)


@given(st.binary(max_size=3000))
def test_only_our_errors(data: bytes) -> None:
    for head in (b"", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x28\xb5\x2f\xfd"):
        try:
            expand(head + data)
        except (InvalidFormat, HostError):
            pass


def stream(data: bytes, bounds: Bounds | None = None) -> LayerStream:
    return LayerStream(reader(data), codecs()[0], bounds or Bounds())


def test_stream() -> None:
    layer = stream(gzip.compress(DATA))
    assert layer.take(512) == DATA[:512]
    assert b"".join(bytes(piece) for piece in layer.pieces(700_000)) == DATA[512:700_512]
    assert layer.take(0) == b""
    assert layer.take(600_000) == DATA[700_512:1_300_512]
    assert layer.finish() == compute_digest(DATA)
    assert layer.size == len(DATA)
    assert layer.take(10) == b""


def test_stream_ends() -> None:
    layer = stream(b"abcdef")
    assert layer.take(4) == b"abcd"
    assert layer.take(4) == b"ef"
    assert list(layer.pieces(5)) == []
    assert layer.finish() == compute_digest(b"abcdef")


def test_stream_reports_damage_where_it_is_met() -> None:
    layer = stream(gzip.compress(DATA)[:-3])
    with pytest.raises(InvalidFormat, match="ends too early"):
        layer.finish()
    layer = stream(b"x")
    layer.abandon()


def test_bombs() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    with pytest.raises(InvalidFormat, match="decompression bomb"):
        stream(bomb, Bounds(ratio=100, free=1_000_000)).finish()
    with pytest.raises(InvalidFormat, match="more than the 5000000 bytes allowed"):
        stream(bomb, Bounds(size=5_000_000)).finish()
    assert stream(bomb, Bounds(ratio=100, free=30_000_000)).finish() == compute_digest(bytes(20_000_000))
