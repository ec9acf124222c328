"""Copies into a tree that is there: what an archive may not do to it, and what stays when one breaks off."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.support.fakeregistry import build_tar, file, member
from usercontainerd.base.errors import AlreadyExists, InvalidFormat, NoSuchFile, UsercontainerError
from usercontainerd.engine.copies.paths import (
    DIRECTORY,
    FILE,
    STREAM,
    Source,
    Target,
    find_place,
    open_target,
)
from usercontainerd.engine.copies.streams import ArchiveSource, write_target
from usercontainerd.store.archive import TreeArchiver
from usercontainerd.store.overlay import MergedDirectory
from usercontainerd.store.tarreader import TarReader
from usercontainerd.store.treewriter import Manner, TreeWriter


def write(
    top: Path, data: bytes, name: bytes | None = None, *, overwrite: bool = False, is_new: bool = False
) -> list[str]:
    target = Target(os.open(top, os.O_RDONLY), name, is_new=is_new)
    try:
        return write_target(target, Manner(overwrite=overwrite), iter([data]))
    finally:
        target.close()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return member(name, kind, linkname=target)


Members = list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no archive may reach; the tree is beside it."""
    (tmp_path / "tree").mkdir()
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


@pytest.mark.parametrize(
    "entries",
    [
        [file("../outside/new", b"x")],
        [file("a/../../outside/new", b"x")],
        [link("a", "../outside"), file("a/new", b"x")],
        [link("a", "../outside"), member("a", tarfile.DIRTYPE), file("a/new", b"x")],
        [link("a", "../outside"), link("a/new", "x")],
        [link("a", "../outside"), link("b", "a/secret", tarfile.LNKTYPE)],
        [file("there/new", b"x")],
        [link("b", "there/secret", tarfile.LNKTYPE)],
        [link("b", "../outside/secret", tarfile.LNKTYPE)],
    ],
)
def test_nothing_leads_out(outside: Path, entries: Members) -> None:
    tree = outside.parent / "tree"
    (tree / "there").symlink_to("../outside")
    with pytest.raises(UsercontainerError):
        write(tree, build_tar(*entries))
    assert os.listdir(outside) == ["secret"]
    assert not os.path.lexists(tree / "b")
    assert not [name for name in os.listdir(tree) if name.startswith(".usercontainer")]


def test_names_replace_symlinks_and_nothing_behind_them(outside: Path) -> None:
    tree = outside.parent / "tree"
    (tree / "a").symlink_to("../outside/secret")
    (tree / "b").symlink_to("../outside")
    write(tree, build_tar(file("a", b"new"), link("b", "elsewhere")))
    assert (outside / "secret").read_text() == "secret"
    assert (tree / "a").read_text() == "new"
    assert os.readlink(tree / "b") == "elsewhere"


def test_directories_and_others_are_not_confused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "kept").touch()
    (tmp_path / "f").touch()
    for entry in (file("d", b"x"), member("f", tarfile.DIRTYPE)):
        with pytest.raises(AlreadyExists, match="--overwrite"):
            write(tmp_path, build_tar(entry))
    assert (tmp_path / "d" / "kept").exists()
    write(tmp_path, build_tar(file("d", b"x"), member("f", tarfile.DIRTYPE)), overwrite=True)
    assert (tmp_path / "d").read_text() == "x"
    assert (tmp_path / "f").is_dir()


def test_directories_that_are_there_keep_their_attributes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o711)
    write(tmp_path, build_tar(member("d", tarfile.DIRTYPE, mode=0o500), file("d/f", b"x", mode=0o640)))
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o711
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) == 0o640


def test_an_archive_that_breaks_off_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    whole = build_tar(member("x", tarfile.DIRTYPE), file("x/f", b"new" * 1000))
    with pytest.raises(InvalidFormat, match="broken archive"):
        write(tmp_path, whole[:2000], b"new", is_new=True)
    with pytest.raises(InvalidFormat):
        write(tmp_path, build_tar(file("x", b"new" * 1000))[:1000], b"f")
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "old"
    write(tmp_path, whole, b"new", is_new=True)
    assert (tmp_path / "new" / "f").read_bytes() == b"new" * 1000


def test_a_tree_comes_over_as_it_is(tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "sub").mkdir(parents=True)
    (old / "sub" / "file").write_bytes(b"x" * 200_000)
    os.link(old / "sub" / "file", old / "again")
    (old / "link").symlink_to("nowhere")
    os.mkfifo(old / "fifo")
    with open(old / "sparse", "wb") as sparse:
        sparse.truncate(1 << 30)
        sparse.seek(1 << 29)
        sparse.write(b"middle")
    os.utime(old / "sub", (1_700_000_000, 1_700_000_000.5))
    (old / "sub").chmod(0o510)
    chunks: list[bytes] = []
    parent = os.open(tmp_path, os.O_RDONLY)
    TreeArchiver(chunks.append, whiteouts=False, sparse=True).write_item(
        MergedDirectory([parent]), b"old", b"item"
    )
    data = b"".join(chunks)
    assert len(data) < 1 << 20
    # Others can read it, too.
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("item/sparse").size == 1 << 30
    TreeWriter(parent, Manner(), b"new").write(TarReader(ArchiveSource(iter([data]))))
    os.close(parent)
    new = tmp_path / "new"
    assert sorted(os.listdir(new)) == ["again", "fifo", "link", "sparse", "sub"]
    assert (new / "again").stat().st_ino == (new / "sub" / "file").stat().st_ino
    assert (new / "sub").stat().st_mtime_ns == (old / "sub").stat().st_mtime_ns
    assert stat.S_IMODE((new / "sub").stat().st_mode) == 0o510
    assert (new / "sparse").stat().st_blocks < 1000
    with open(new / "sparse", "rb") as copy:
        copy.seek((1 << 29) - 1)
        assert copy.read(8) == b"\0middle\0"


RULES = [
    # source, destination, where it ends up; None: refused
    (Source(FILE, b"s"), "missing", "missing"),
    (Source(FILE, b"s"), "missing/", None),
    (Source(FILE, b"s"), "no/missing", None),
    (Source(FILE, b"s"), "f", "f"),
    (Source(FILE, b"s"), "f/", None),
    (Source(FILE, b"s"), "d", "d/s"),
    (Source(FILE, b"s"), "d/", "d/s"),
    (Source(FILE, b"s"), "d/..", "s"),
    (Source(FILE, b"s"), "link", "d/s"),
    (Source(FILE, b"s"), "dangling", "target"),
    (Source(FILE, b"s"), "fifo", None),
    (Source(DIRECTORY, b"s"), "missing", "missing"),
    (Source(DIRECTORY, b"s"), "missing/", "missing"),
    (Source(DIRECTORY, b"s"), "f", None),
    (Source(DIRECTORY, b"s"), "d", "d/s"),
    (Source(DIRECTORY, b"s"), "link/", "d/s"),
    (Source(DIRECTORY, b"."), "d", "d"),
    (Source(DIRECTORY, b"."), "missing", "missing"),
    (Source(STREAM), "d", "d"),
    (Source(STREAM), "missing", None),
    (Source(STREAM), "f", None),
]


@pytest.mark.parametrize(("source", "destination", "result"), RULES)
def test_rules_of_docker(tmp_path: Path, source: Source, destination: str, result: str | None) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "dangling").symlink_to("target")

    def decide() -> str:
        place = find_place(f"{tmp_path}/{destination}")
        target = open_target(source, place, overwrite=False)
        place.close()
        where = os.readlink(f"/proc/self/fd/{target.at}")
        target.close()
        return os.path.normpath(os.path.join(where, os.fsdecode(target.name or b".")))

    if result is None:
        with pytest.raises(UsercontainerError):
            decide()
    else:
        assert decide() == f"{tmp_path}/{result}"


def test_what_is_copied(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    cases = (("d", b"d"), ("d/", b"d"), ("d/.", b"."), ("link", b"link"), ("d/../d", b"d"))
    for path, name in cases:
        place = find_place(f"{tmp_path}/{path}")
        assert place.describe_source().name == name, path
        place.close()
    with pytest.raises(UsercontainerError, match="a device"):
        find_place("/dev/null").describe_source()
    with pytest.raises(NoSuchFile):
        find_place(f"{tmp_path}/no").describe_source()
