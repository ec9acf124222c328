"""What is read from pipes and compressed files."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument, InvalidFormat, StoreError
from usercontainerd.base.paths import Paths
from usercontainerd.engine.archives import input as archive_input
from usercontainerd.engine.archives.input import make_seekable
from usercontainerd.store.layout import Store

HEADER = tarfile.TarInfo("file").tobuf()
DATA = HEADER + os.urandom(300_000) + bytes(300_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(
        Paths.from_environment({"XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path)}, 1000)
    )


def read_all(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size + 1, 0)


def spool(store: Store, data: bytes, tmp_path: Path) -> int:
    path = tmp_path / "input"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return make_seekable(store, fd, where="here", report=lambda _done: None)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        lzma.compress,
        bz2.compress,
        lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:]),
        lambda data: lzma.compress(data[:99]) + lzma.compress(data[99:]) + bytes(8),
        lambda data: bz2.compress(data[:99]) + bz2.compress(data[99:]),
    ],
)
def test_compressed_files(store: Store, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    fd = spool(store, compress(DATA), tmp_path)
    assert read_all(fd) == DATA
    assert os.fstat(fd).st_nlink == 0
    assert os.listdir(store.staging) == []
    os.close(fd)


def test_a_plain_file_is_not_copied(store: Store, tmp_path: Path) -> None:
    fd = spool(store, DATA, tmp_path)
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "input"))
    assert not os.path.exists(store.root)
    os.close(fd)


def test_pipe(store: Store) -> None:
    read_end, write_end = os.pipe()
    seen: list[int] = []

    def feed() -> None:
        with open(write_end, "wb") as file:
            file.write(gzip.compress(DATA))

    thread = threading.Thread(target=feed)
    thread.start()
    fd = make_seekable(store, read_end, where="here", report=seen.append)
    thread.join()
    assert read_all(fd) == DATA
    assert seen == sorted(seen)
    for each in (fd, read_end):
        os.close(each)


def test_directory_and_nothing(store: Store, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(InvalidArgument, match="directory"):
        make_seekable(store, fd, where="here", report=lambda _done: None)
    os.close(fd)
    with pytest.raises(InvalidArgument, match="No such file"):
        archive_input.open_input(str(tmp_path / "nothing"))


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
@pytest.mark.parametrize("damage", ["cut", "changed", "followed"])
def test_damaged(store: Store, tmp_path: Path, compress: Callable[[bytes], bytes], damage: str) -> None:
    data = compress(DATA)
    if damage == "cut":
        data = data[:-20]
    elif damage == "changed":
        data = data[:1000] + bytes(64) + data[1064:]
    else:
        data += b"something else"
    with pytest.raises(InvalidFormat, match=r"damaged|too early|follows") as caught:
        spool(store, data, tmp_path)
    assert "here: the archive" in str(caught.value) or "in the archive" in str(caught.value)
    assert os.listdir(store.staging) == []


def test_bombs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_input, "MAX_UNMEASURED", 1 << 20)
    for compress in (gzip.compress, lzma.compress, bz2.compress):
        with pytest.raises(InvalidFormat, match="bomb"):
            spool(store, compress(HEADER + bytes(8 << 20)), tmp_path)
    with pytest.raises(InvalidFormat, match="damaged"):
        # It asks for a dictionary of more memory than is given.
        huge = lzma.compress(DATA, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}])
        spool(store, huge, tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/dev/zero", "it is all zeros"),
        ("/dev/urandom", "not a tar archive"),
        ("/dev/full", "it is all zeros"),
    ],
)
def test_endless_junk_is_refused_before_it_fills_the_disk(store: Store, source: str, message: str) -> None:
    seen: list[int] = []
    with open(source, "rb", buffering=0) as file, pytest.raises(InvalidFormat, match=message):
        make_seekable(store, file.fileno(), where="here", report=seen.append)
    assert sum(seen[-1:]) <= 2 << 20
    assert os.listdir(store.staging) == []


@pytest.mark.parametrize("data", [bytes(10240), bytes(1024), b"", HEADER + bytes(4 << 20), b"junk"])
def test_what_may_be_an_archive_is_kept(store: Store, data: bytes) -> None:
    read_end, write_end = os.pipe()

    def feed() -> None:
        with open(write_end, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    fd = make_seekable(store, read_end, where="here", report=lambda _done: None)
    thread.join()
    assert read_all(fd) == data
    for each in (fd, read_end):
        os.close(each)


def test_larger_than_any(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_input, "MAX_SPOOLED", 1 << 18)
    with pytest.raises(InvalidFormat, match="larger than"):
        spool(store, gzip.compress(DATA), tmp_path)


def test_full_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.write", refuse)
    with pytest.raises(StoreError, match=r"No space left.*free some space"):
        spool(store, gzip.compress(DATA), tmp_path)


def test_without_nameless_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return really(path, flags, mode)

    store.prepare()
    monkeypatch.setattr("os.open", refuse)
    fd = archive_input.open_nameless(store.staging)
    assert os.listdir(store.staging) == []
    os.close(fd)
