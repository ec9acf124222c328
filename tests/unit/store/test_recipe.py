"""Recipes: what the recorder writes, the reader gives back; what is damaged is said to be."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakeregistry import build_tar, file, member
from tests.support.memoryfs import MemoryFileSystem
from tests.unit.store.test_tar import BytesSource
from tests.unit.store.test_unpack import DIR, IDS, LNK, SYM
from usercontainerd.base.errors import StoreError
from usercontainerd.store.recipe import MAGIC, RecipeReader, Recorder
from usercontainerd.store.tarreader import TarReader
from usercontainerd.store.unpack import Unpacker


def unpack_and_rebuild(data: bytes, **limits: int) -> bytes | None:
    """What a recipe and the files make of an archive; None if the recipe was given up."""
    fs = MemoryFileSystem()
    fd = os.memfd_create("recipe")
    recorder = Recorder(os.dup(fd), **limits)
    try:
        try:
            Unpacker(fs, IDS, recorder=recorder).unpack(TarReader(source := BytesSource(data), recorder.add))
            recorder.add(source.data.read())
        finally:
            complete = recorder.finish()
        if not complete:
            assert os.fstat(fd).st_size == 0
            return None
        return rebuild(fs, fd)
    finally:
        os.close(fd)


def rebuild(fs: MemoryFileSystem, fd: int) -> bytes:
    result = []
    for verbatim, path, offset, size, whole in RecipeReader(fd).read():
        result.append(verbatim)
        if path is not None:
            content = fs.node(os.fsdecode(path)).content
            assert not whole or len(content) == size
            result.append(bytes(content[offset : offset + size]))
    return b"".join(result)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        build_tar(),
        build_tar(file("a", b"x" * 100_000), file("b"), file("c", b"1" * 512)),
        build_tar(file("a", b"1"), file("a", b"22"), file("a", b"333")) + b"tail",
        build_tar(file("a", b"1"), member("a", LNK, linkname="b")),
        build_tar(file("b", b"1"), member("a", LNK, linkname="b"), file("b", b"2"), file("a", b"3"), file("a", b"4")),
        build_tar(member("l", SYM, linkname="d"), member("d", DIR), file("l/x", b"1"), file("d/x", b"2")),
        build_tar(file("d/x", b"1"), member("l", SYM, linkname="d"), file("l", b"2"), file("d", b"3")),
        build_tar(file(".wh.x", b"hidden"), file("x/.wh..wh..opq", b"data"), file("x/y", b"z")),
    ],
)  # fmt: skip
def test_round_trips(data: bytes) -> None:
    try:
        assert unpack_and_rebuild(data) == data
    except Exception as error:
        assert "not in its layer" in str(error)


def test_limits() -> None:
    data = build_tar(file("a", b"12345"), file("a", b"1"))
    assert unpack_and_rebuild(data, max_lost=5) == data
    assert unpack_and_rebuild(data, max_lost=4) is None
    noise = build_tar(file("a")) + os.urandom(700_000)
    assert unpack_and_rebuild(noise, max_size=800_000) == noise
    assert unpack_and_rebuild(noise, max_size=200_000) is None


def test_a_full_disk() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    recorder = Recorder(fd)
    recorder.add(os.urandom(3_000_000))
    with pytest.raises(OSError, match="No space left"):
        recorder.finish()


def test_nearest_loss_counts() -> None:
    fd = os.memfd_create("recipe")
    recorder = Recorder(os.dup(fd))
    recorder.add_lost(b"p", 1, lambda: b"0")  # a hard link's name
    recorder.add_content(b"p", 2)
    recorder.add_segment(b"q", 1, 2)
    recorder.add_lost(b"p", 2, lambda: b"11")
    recorder.add_lost(b"p", 1, lambda: b"x")  # a hard link's again
    recorder.add_content(b"p", 3)
    recorder.add_lost(b"q", 4, lambda: b"abcd")
    assert recorder.finish()
    assert list(RecipeReader(fd).read()) == [
        (b"11", None, 0, 0, False),
        (b"bc", None, 0, 0, False),
        (b"", b"p", 0, 3, True),
    ]
    os.close(fd)


@given(st.integers(0, 200), st.integers(0, 255))
def test_damage(at: int, byte: int) -> None:
    fd = os.memfd_create("recipe")
    recorder = Recorder(os.dup(fd))
    recorder.add(b"some bytes")
    recorder.add_content(b"path", 77)
    recorder.finish()
    whole = list(RecipeReader(fd).read())
    data = bytearray(os.pread(fd, 1000, 0))
    data[at % len(data)] = byte
    os.pwrite(fd, data, 0)
    try:
        # Some bits mean nothing: gzip's time and system, the padding of its last byte.
        assert list(RecipeReader(fd).read()) == whole
    except StoreError as error:
        assert "recipe is damaged" in str(error) or re.match(rb"usercontainer recipe [1-9][0-9\n]", data)
    finally:
        os.close(fd)


LATER = [b"usercontainer recipe %d\n" % number for number in (2, 9, 10, 99)]


@pytest.mark.parametrize("magic", LATER)
def test_a_later_version(magic: bytes) -> None:
    fd = os.memfd_create("recipe")
    try:
        os.write(fd, magic + b"...")
        with pytest.raises(
            StoreError, match="a later version of usercontainerd has written the layer's recipe"
        ):
            list(RecipeReader(fd).read())
    finally:
        os.close(fd)


def test_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "recipe"
    recorder = Recorder(os.open(path, os.O_WRONLY | os.O_CREAT))
    recorder.add(b"x")
    assert recorder.finish()
    assert path.read_bytes().startswith(MAGIC)
