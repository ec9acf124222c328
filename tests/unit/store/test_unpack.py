"""Unpacking into a file system in memory: what each entry becomes, and that no name leads anywhere else."""

import errno
import os
import stat
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakeregistry import build_tar, file, member
from tests.support.memoryfs import MemoryFileSystem, Node
from tests.unit.store.test_tar import BytesSource
from usercontainerd.base.errors import HostError, InvalidFormat, StoreError, SubIdsMissing, UsercontainerError
from usercontainerd.store.places import MappedIds, Summary, clean_path
from usercontainerd.store.tarreader import TarReader
from usercontainerd.store.unpack import Unpacker

IDS = MappedIds([(0, 1), (1, 65536)], [(0, 1), (1, 65536)])
DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def unpack(
    *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes],
    fs: MemoryFileSystem | None = None,
    ids: MappedIds = IDS,
    max_entries: int = 1000,
) -> tuple[MemoryFileSystem, Summary]:
    fs = fs or MemoryFileSystem()
    summary = Unpacker(fs, ids, max_entries=max_entries).unpack(TarReader(BytesSource(build_tar(*members))))
    assert fs.files == {}, "a file was left open"
    return fs, summary


def is_whiteout(node: Node) -> bool:
    return stat.S_ISCHR(node.mode) and node.device == 0


def test_a_small_tree() -> None:
    fs, summary = unpack(
        member(".", DIR, mode=0o711, mtime=3, uid=7),
        member("etc", DIR, mtime=4),
        file("etc/passwd", b"root", mtime=5, uid=1, gid=2),
        file("bin/su", b"x", mode=0o4755, uid=9),
        member("sbin", SYM, linkname="/bin", mtime=6, uid=3),
        member("bin/sudo", LNK, linkname="bin/su", mode=0o4755, uid=9),
        member("run/fifo", tarfile.FIFOTYPE, mode=0o622),
        member("srv", DIR, mode=0o2775, gid=50),
        file("srv/inherits", b""),
    )
    assert fs.names() == ["bin", "etc", "run", "sbin", "srv"]
    assert (fs.root.mode & 0o7777, fs.root.mtime, fs.root.uid) == (0o711, 3 * 10**9, 7)
    passwd = fs.node("etc/passwd")
    assert (bytes(passwd.content), passwd.uid, passwd.gid, passwd.mtime) == (b"root", 1, 2, 5 * 10**9)
    assert fs.node("etc").mtime == 4 * 10**9
    assert fs.node("bin").mode & 0o7777 == 0o755
    assert fs.node("bin/su").mode & 0o7777 == 0o4755
    assert fs.node("bin/sudo") is fs.node("bin/su")
    assert (fs.node("sbin").target, fs.node("sbin").uid) == (b"/bin", 3)
    assert stat.S_ISFIFO(fs.node("run/fifo").mode)
    # A set-group-ID directory gets its bit last: until then it would hand its group on.
    assert fs.node("srv").mode & 0o7777 == 0o2775
    assert fs.node("srv/inherits").gid == 0
    assert (summary.entries, summary.size, summary.warnings) == (9, 5, [])


def test_what_a_hard_link_says_of_the_file() -> None:
    xattrs = {"SCHILY.xattr.user.a": "1"}
    for changes in ({"mode": 0o4711}, {"uid": 7}, {"mtime": 3}, {"pax_headers": xattrs}):
        same: dict[str, Any] = {"mode": 0o4755, "uid": 9, "mtime": 5}
        fs, _ = unpack(file("f", b"x", **same), member("h", LNK, linkname="f", **{**same, **changes}))
        node = fs.node("f")
        assert node is fs.node("h")
        wanted = {**same, **changes}
        assert (node.mode & 0o7777, node.uid, node.mtime) == (
            wanted["mode"],
            wanted["uid"],
            wanted["mtime"] * 10**9,
        )
        assert node.xattrs == ({b"user.a": b"1"} if "pax_headers" in changes else {})


def test_whiteouts() -> None:
    fs, _ = unpack(
        file("usr/.wh.gone"),
        file("usr/lib/.wh..wh..opq"),
        file("usr/.wh..wh.plnk"),
        file(".wh.top"),
    )
    assert is_whiteout(fs.node("usr/gone"))
    assert is_whiteout(fs.node("top"))
    assert fs.node("usr/lib").xattrs == {b"user.overlay.opaque": b"y"}
    assert fs.names("usr") == ["gone", "lib"]


def test_opaque_root() -> None:
    fs, _ = unpack(file(".wh..wh..opq"))
    assert fs.root.xattrs == {b"user.overlay.opaque": b"y"}


def test_whiteout_and_new_thing_in_one_layer() -> None:
    # The directory comes anew: it must not merge with the lower one, in whatever order the archive has it.
    for members in (
        [file(".wh.d"), member("d", DIR), file("d/new")],
        [member("d", DIR), file("d/new"), file(".wh.d")],
        [file(".wh.d"), file("d/new")],
    ):
        fs, _ = unpack(*members)
        assert fs.names("d") == ["new"]
        assert fs.node("d").xattrs == {b"user.overlay.opaque": b"y"}
    for members in ([file(".wh.f"), file("f", b"1")], [file("f", b"1"), file(".wh.f")]):
        fs, _ = unpack(*members)
        assert fs.node("f").content == b"1"


def test_the_last_entry_of_a_name_counts() -> None:
    fs, _ = unpack(
        file("a", b"1"),
        file("a", b"2"),
        member("b", DIR),
        file("b/c/d", b"x"),
        file("b", b"file"),
        member("l", SYM, linkname="/etc"),
        member("l", DIR, mode=0o700),
        file("l/x"),
        member("d", DIR, mode=0o700),
        file("d/kept"),
        member("d", DIR, mode=0o755, uid=5),
        file("s", b""),
        member("s", SYM, linkname="a"),
    )
    assert fs.node("a").content == b"2"
    assert fs.node("b").content == b"file"
    assert fs.names("l") == ["x"]
    assert (fs.names("d"), fs.node("d").mode & 0o777, fs.node("d").uid) == (["kept"], 0o755, 5)
    assert fs.node("s").target == b"a"
    assert "etc" not in fs.names()


def test_files_never_follow_symlinks() -> None:
    fs, _ = unpack(file("victim", b"safe"), member("link", SYM, linkname="victim"), file("link", b"evil"))
    assert fs.node("victim").content == b"safe"
    assert fs.node("link").content == b"evil"


def test_parents_through_symlinks_stay_inside() -> None:
    fs, _ = unpack(
        member("up", SYM, linkname="../../../.."),
        member("tmp", DIR),
        file("up/tmp/x", b"1"),
        file("up/etc/y", b"2"),
    )
    assert fs.node("tmp/x").content == b"1"
    assert fs.node("etc/y").content == b"2"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "..", "./../../etc/passwd"])
def test_climbing_names(name: str) -> None:
    with pytest.raises(InvalidFormat, match="leads out of the layer"):
        unpack(file(name))
    with pytest.raises(InvalidFormat, match="leads out of the layer"):
        unpack(member("l", LNK, linkname=name))


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (b"a", b"a"),
        (b"/etc/passwd", b"etc/passwd"),
        (b"./a//b/.", b"a/b"),
        (b"a/../b", b"b"),
        (b".", b""),
        (b"/", b""),
        (b"a/..", b""),
        (b"...", b"..."),
        (b"\xff", b"\xff"),
    ],
)
def test_clean_names(name: bytes, clean: bytes) -> None:
    assert clean_path(name) == clean


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([file("")], "has no name"),
        ([file("x/" * 3000)], "too long"),
        ([file("n" * 256)], "cannot be placed: File name too long"),
        ([file("f"), file("f/x")], "Not a directory"),
        ([member("l", SYM, linkname="l"), file("l/x")], "Too many levels"),
        ([member("l", SYM, linkname="nowhere"), file("l/x")], "cannot be placed"),
        ([member("l", SYM, linkname="")], "no usable target"),
        ([member("h", LNK, linkname="missing")], "not in its layer"),
        ([member("d", DIR), member("h", LNK, linkname="d")], "does not lead to a file"),
        ([file(".wh.x"), member("h", LNK, linkname="x")], "does not lead to a file"),
        ([member(".", SYM, linkname="x")], "root is not a directory"),
        ([file("a/..", b"x")], "root is not a directory"),
        ([file("a/.wh.")], "hides nothing"),
        ([file("a/.wh...")], "hides nothing"),
    ],
)
def test_refused(members: list[tarfile.TarInfo], message: str) -> None:
    with pytest.raises(InvalidFormat, match=message):
        unpack(*members)


def test_too_many_entries() -> None:
    with pytest.raises(InvalidFormat, match="more than the 5 entries"):
        unpack(*[file(f"f{n}") for n in range(6)], max_entries=5)


def test_owners_beyond_the_mapping() -> None:
    with pytest.raises(
        SubIdsMissing, match=r"'x' belongs to user ID 65537, but only the IDs 0, 1 to 65536 are mapped"
    ):
        unpack(file("x", uid=65537))
    with pytest.raises(SubIdsMissing, match=r"group ID 4294967296.*/etc/subgid"):
        unpack(file("x", gid=1 << 32))
    single = MappedIds([(0, 1)], [(0, 1)], "usermod --add-subuids …")
    unpack(file("x"), ids=single)
    with pytest.raises(
        SubIdsMissing, match=r"user ID 33, but only the ID 0 is mapped \(usermod --add-subuids"
    ):
        unpack(member("d", DIR, uid=33), ids=single)


def test_devices_are_left_out() -> None:
    fs, summary = unpack(
        member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("dev/zero-zero", tarfile.CHRTYPE),
        member("dev/sda", tarfile.BLKTYPE, devmajor=8),
    )
    assert fs.names() == []
    assert summary.warning_count == 3
    assert "device node left out: 'dev/null'" in summary.warnings


def test_xattrs() -> None:
    fs, summary = unpack(
        file(
            "x",
            uid=5,
            pax_headers={
                "SCHILY.xattr.user.a": "1",
                "SCHILY.xattr.security.capability": "cap",
                "SCHILY.xattr.security.selinux": "label",
                "SCHILY.xattr.trusted.x": "x",
                "SCHILY.xattr.user.overlay.opaque": "y",
            },
        ),
        member("d", DIR, pax_headers={"SCHILY.xattr.user.overlay.redirect": "/etc"}),
    )
    assert fs.node("x").xattrs == {b"user.a": b"1", b"security.capability": b"cap"}
    assert fs.node("d").xattrs == {}
    assert len(summary.warnings) == 2


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreError),
        (errno.EDQUOT, StoreError),
        (errno.EIO, HostError),
        (errno.EROFS, HostError),
    ],
)
def test_errors_of_the_host(number: int, kind: type[UsercontainerError]) -> None:
    class Failing(MemoryFileSystem):
        def write(self, fd: int, data: bytes | memoryview, /) -> int:
            raise OSError(number, os.strerror(number))

    with pytest.raises(kind, match=os.strerror(number)):
        unpack(file("x", b"abc"), fs=Failing())


_part = st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh...", "/", "c" * 300, "é"])
_path = st.lists(_part, max_size=5).map("/".join)
_kind = st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6"])
_member = st.builds(
    lambda name, kind, link, mode, content: (
        member(name, kind, linkname=link, mode=mode),
        content if kind == b"0" else b"",
    ),
    _path, _kind, _path, st.integers(0, 0o7777), st.binary(max_size=50),
)  # fmt: skip


@given(st.lists(_member, max_size=12))
def test_no_name_leads_out(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    fs = MemoryFileSystem()
    try:
        unpack(*members, fs=fs)
    except UsercontainerError:
        pass
    for path in fs.paths:
        assert path
        assert not path.startswith(b"/")
        assert b"\0" not in path
        assert b".." not in path.split(b"/")
    pending = [fs.root]
    while pending:
        node = pending.pop()
        assert not stat.S_ISBLK(node.mode)
        pending.extend(child for child in node.children.values() if stat.S_ISDIR(child.mode))
