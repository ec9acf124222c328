"""Parts of an image in files that nobody can trust: found by name, never by path."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.support.fakeregistry import build_tar, digest_of, file, member
from tests.support.images import Member
from usercontainerd.base.errors import DigestMismatch, InvalidArgument, InvalidFormat
from usercontainerd.engine.archives import members as archive_members
from usercontainerd.engine.archives.members import DirectoryMembers, TarMembers, clean_name, copy_checked
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor

SYM, LNK = tarfile.SYMTYPE, tarfile.LNKTYPE


def open_tar(tmp_path: Path, data: bytes) -> TarMembers:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    return TarMembers(os.open(path, os.O_RDONLY), str(path))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("index.json", "index.json"),
        ("./index.json", "index.json"),
        ("a//b/./c/", "a/b/c"),
        ("a/../b", "b"),
        ("/etc/passwd", None),
        ("../x", None),
        ("a/../../x", None),
        (".", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_names(text: str, clean: str | None) -> None:
    assert clean_name(text) == clean


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_contents_by_their_offsets(tmp_path: Path, form: int) -> None:
    long = "d/" * 90 + "x" * 60
    members: list[Member] = [
        file("./a", b"1" * 700),
        member("d", tarfile.DIRTYPE),
        file("empty"),
        file("last", b"z" * 512),
    ]
    if form != tarfile.USTAR_FORMAT:
        members.insert(1, file(long, b"long"))
    archive = open_tar(tmp_path, build_tar(*members, form=form))
    assert archive.read("a", limit=700) == b"1" * 700
    assert archive.size("last") == 512
    assert b"".join(archive.pieces("last")) == b"z" * 512
    assert archive.read("empty", limit=0) == b""
    assert not archive.has("d")
    assert archive.has(long) == (form != tarfile.USTAR_FORMAT)
    archive.close()


def test_links_lead_to_members_only(tmp_path: Path) -> None:
    archive = open_tar(
        tmp_path,
        build_tar(
            file("abc.tar", b"layer"),
            member("old/layer.tar", SYM, linkname="../abc.tar"),
            member("hard.tar", LNK, linkname="abc.tar"),
            member("out", SYM, linkname="../../../../etc/passwd"),
            member("absolute", SYM, linkname="/etc/passwd"),
            member("self", SYM, linkname="self"),
            member("ring1", SYM, linkname="ring2"),
            member("ring2", SYM, linkname="ring1"),
            member("dangling", SYM, linkname="nothing"),
        ),
    )
    assert archive.read("old/layer.tar", limit=10) == b"layer"
    assert archive.read("hard.tar", limit=10) == b"layer"
    for name in ("out", "absolute", "self", "ring1", "dangling", "../abc.tar", "/abc.tar", "nothing"):
        assert not archive.has(name)
        with pytest.raises(InvalidFormat, match="not in the archive"):
            archive.read(name, limit=10)
    archive.close()


def test_names_that_climb_are_no_members(tmp_path: Path) -> None:
    archive = open_tar(tmp_path, build_tar(file("../index.json", b"x"), file("/index.json", b"y")))
    assert not archive.has("index.json")
    archive.close()


def test_what_is_there_twice_is_not_read(tmp_path: Path) -> None:
    archive = open_tar(tmp_path, build_tar(file("index.json", b"1"), file("./index.json", b"2")))
    with pytest.raises(InvalidFormat, match="2 times"):
        archive.read("index.json", limit=10)
    archive.close()


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_tar(*(file(str(number)) for number in range(20)), file("n" * 600, b"x"))
    archive = open_tar(tmp_path, data)
    assert not archive.has("n" * 600)
    archive.close()
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 10)
    with pytest.raises(InvalidFormat, match="more than the 10 files"):
        open_tar(tmp_path, data)
    big = open_tar(tmp_path, build_tar(file("index.json", b"x" * 100)))
    with pytest.raises(InvalidFormat, match="100 bytes, more than the 99"):
        big.read("index.json", limit=99)
    big.close()


@pytest.mark.parametrize("cut", [100, 700, 1024, 2048, 2560])
def test_cut_off(tmp_path: Path, cut: int) -> None:
    data = build_tar(file("a", b"x" * 600), file("b", b"y" * 600))
    with pytest.raises(InvalidFormat, match=r"not all of one|ends in the middle") as caught:
        open_tar(tmp_path, data[:cut])
    assert str(tmp_path / "archive.tar") in str(caught.value)


def test_endless_size(tmp_path: Path) -> None:
    """A header that promises far more than there is costs no time and no memory."""
    info = member("a")
    info.size = 1 << 60
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(InvalidFormat, match="ends in the middle"):
        open_tar(tmp_path, header + bytes(1024))


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    """What lies in the archive is not the content of such a file."""
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "index.json",
        "GNU.sparse.size": "1024",
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.map": "512,5",
    }
    with pytest.raises(InvalidFormat, match="is a sparse file"):
        open_tar(tmp_path, build_tar(file("index.json", b"hello", pax_headers=headers)))


def test_junk_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFormat, match="not a tar archive"):
        open_tar(tmp_path, b"junk")
    with pytest.raises(InvalidFormat, match="broken archive"):
        open_tar(tmp_path, b"junk" * 512)


def test_directory(tmp_path: Path) -> None:
    top = tmp_path / "layout"
    (top / "blobs").mkdir(parents=True)
    (top / "index.json").write_bytes(b"{}")
    (tmp_path / "secret").write_bytes(b"secret")
    (top / "inside").symlink_to("index.json")
    (top / "outside").symlink_to("../secret")
    (top / "absolute").symlink_to(tmp_path / "secret")
    (top / "loop").symlink_to("loop")
    os.mkfifo(top / "fifo")
    members = DirectoryMembers(str(top))
    assert members.read("index.json", limit=2) == b"{}"
    assert members.read("inside", limit=2) == b"{}"
    assert members.size("index.json") == 2
    assert not members.has("nothing")
    for name in ("outside", "absolute", "loop", "fifo", "blobs", "../secret", "nothing"):
        with pytest.raises(InvalidFormat):
            members.read(name, limit=10)
    with pytest.raises(InvalidFormat, match="more than the 1 bytes"):
        members.read("index.json", limit=1)
    members.close()
    with pytest.raises(InvalidArgument):
        DirectoryMembers(str(tmp_path / "nothing"))


def test_copies_are_checked() -> None:
    data = b"hello"
    got: list[bytes] = []
    seen: list[int] = []
    blob = Descriptor("x", Digest(digest_of(data)), len(data))
    copy_checked([b"he", b"llo"], blob, got.append, seen.append, "here")
    assert (b"".join(got), seen) == (data, [2, 5])
    for wrong, reason in (
        ([b"hallo"], "got sha256"),
        ([b"hell"], "4 bytes"),
        ([b"hello", b"!"], "more than"),
    ):
        with pytest.raises(DigestMismatch, match=reason):
            copy_checked(wrong, blob, got.append, None, "here")
