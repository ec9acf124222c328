"""Writing archives and directories: the same every time, whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fakeregistry import digest_of
from usercontainerd.base.errors import InvalidArgument, StoreError
from usercontainerd.engine.archives.output import (
    DirectoryOutput,
    TarOutput,
    build_header,
    writing_directory,
    writing_file,
)
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor


def make(data: bytes) -> Callable[[Callable[[bytes], object]], Descriptor]:
    def write_it(write: Callable[[bytes], object]) -> Descriptor:
        write(data[:2])
        write(data[2:])
        return Descriptor("x", Digest(digest_of(data)), len(data))

    return write_it


def test_tar(tmp_path: Path) -> None:
    written: list[bytes] = []
    output = TarOutput(written.append, str(tmp_path))
    output.add("a/b/one", b"1" * 600)
    output.add("a/b/one", b"another of that name is left out")
    output.add_stream("a/two", 3, [b"t", b"wo"])
    blob = output.add_made(make(b"made"), lambda made: f"a/b/{made.digest.hex}")
    output.finish()
    with tarfile.open(fileobj=io.BytesIO(b"".join(written))) as archive:
        assert [member.name for member in archive] == [
            "a",
            "a/b",
            "a/b/one",
            "a/two",
            f"a/b/{blob.digest.hex}",
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in archive} == {(0, 0, 0, "")}
        assert archive.extractfile(f"a/b/{blob.digest.hex}").read() == b"made"  # type: ignore[union-attr]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("pieces", [[b"1"], [b"1", b"234"], []])
def test_a_piece_of_another_size(tmp_path: Path, pieces: list[bytes]) -> None:
    with pytest.raises(StoreError, match="3 bytes"):
        TarOutput(lambda _data: None, str(tmp_path)).add_stream("x", 3, pieces)
    with pytest.raises(StoreError, match="3 bytes"):
        DirectoryOutput(str(tmp_path)).add_stream("x", 3, pieces)
    assert os.listdir(tmp_path) == []


def test_header_of_something_large() -> None:
    header = build_header("blobs/sha256/x", 20 << 30)
    assert tarfile.TarInfo.frombuf(header, "ascii", "strict").size == 20 << 30


def test_directory(tmp_path: Path) -> None:
    output = DirectoryOutput(str(tmp_path))
    output.add("index.json", b"1")
    output.add("index.json", b"2")
    output.add_stream("blobs/x", 2, [b"ab"])
    output.add_stream("blobs/x", 2, [b"same size: it is there already"])
    output.add_stream("blobs/x", 3, [b"abc"])
    output.add_made(make(b"made"), lambda blob: f"blobs/{blob.size}")
    found = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert found == {"index.json": b"2", "blobs/x": b"abc", "blobs/4": b"made"}


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), writing_file(str(path)) as write:
        write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with writing_file(str(path)) as write:
        write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x.tar"]
    (tmp_path / "link").symlink_to("x.tar")
    with writing_file(str(tmp_path / "link")) as write:
        write(b"through it")
    assert path.read_bytes() == b"through it"
    assert (tmp_path / "link").is_symlink()


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    with writing_file("/dev/null") as write:
        write(b"x")
    read_end, write_end = os.pipe()
    with writing_file(None, stdout=write_end) as write:
        write(b"x")
    assert os.read(read_end, 2) == b"x"
    os.close(read_end)
    with pytest.raises(BrokenPipeError), writing_file(None, stdout=write_end) as write:
        write(b"x")
    os.close(write_end)
    with pytest.raises(InvalidArgument, match="directory"), writing_file(str(tmp_path)):
        pass


def test_terminal() -> None:
    controller, terminal = os.openpty()
    with pytest.raises(InvalidArgument, match="terminal"), writing_file(None, stdout=terminal):
        pass
    with pytest.raises(InvalidArgument, match="terminal"), writing_file(os.ttyname(terminal)):
        pass
    os.close(controller)
    os.close(terminal)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.write", refuse)
    with pytest.raises(StoreError, match="No space left"), writing_file(str(tmp_path / "x")) as write:
        write(b"x")
    assert os.listdir(tmp_path) == []


def test_a_directory_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with pytest.raises(RuntimeError), writing_directory(str(path), "version") as output:
        output.add("version", b"1")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    for content in (b"1", b"2"):
        with writing_directory(str(path), "version") as output:
            output.add("version", content)
        assert (path / "version").read_bytes() == content
        (path / "old").write_bytes(b"x")
    assert sorted(os.listdir(path)) == ["old", "version"]
    assert os.listdir(tmp_path) == ["image"]
    (path / "version").unlink()
    with pytest.raises(InvalidArgument, match="something else"), writing_directory(str(path), "version"):
        pass
    with pytest.raises(InvalidArgument, match="Not a directory"), writing_directory("/etc/passwd", "version"):
        pass
