"""Archives and changes of trees: containers' upper directories as layers, images as they look when mounted."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import build_tar, file, member
from tests.support.images import Member, directory, hard_link, symlink
from tests.support.layers import LayerBench, open_layer_bench
from usercontainerd.base.errors import HostError
from usercontainerd.store.outputs import Output

CAPABILITY = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
LOWER = build_tar(
    directory("etc", mtime=1000),
    file("etc/passwd", b"root", mtime=1000),
    file("etc/hosts", b"localhost", mtime=1000),
    directory("usr/lib", mtime=5),
    directory("usr", mtime=5),
    file("usr/lib/a", b"a"),
    file("usr/lib/b", b"b"),
    file("gone/deep/file", b"x"),
    file("was-file", b"x"),
    file("was-dir/x", b"x"),
    symlink("link", "etc"),
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayerBench]:
    with open_layer_bench(tmp_path_factory.mktemp("store")) as made:
        yield made


def read_all(stream: Output) -> bytes:
    with stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


def archive(bench: LayerBench, path: Path | str) -> bytes:
    return read_all(bench.worker.start_archive(str(path)))


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        infos = opened.getmembers()
    assert len({info.name for info in infos}) == len(infos)
    return {info.name: info for info in infos}


def overlay(tmp_path: Path, lower: Path, script: str) -> Path:
    """Run a script in an overlay mount above ``lower``, as an unprivileged user can; return the upper directory."""
    upper, work, merged = (tmp_path / name for name in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        path.mkdir()
    mount = f"mount -t overlay overlay -o userxattr,lowerdir={lower},upperdir={upper},workdir={work} {merged}"
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        f"{mount}; cd {merged}; {script}",
    ]
    subprocess.run(command, check=True)
    return upper


TREE: list[Member] = [
    directory("a", mode=0o2750, uid=7, gid=8, mtime=77),
    file("a/.wh..wh..opq"),
    file("a/.wh.gone"),
    file("a/file", b"content" * 200, mode=0o4711, uid=1000, mtime=1_700_000_000.25,
         pax_headers={"SCHILY.xattr.user.note": "n", "SCHILY.xattr.security.capability": CAPABILITY}),
    member("a/zz", tarfile.LNKTYPE, linkname="a/file", mode=0o4711, uid=1000, mtime=1_700_000_000.25),
    file("b", b"", mode=0o000, mtime=-3),
    symlink("c", "x" * 300),
    hard_link("d", "c"),
    file("n" * 200, b"long"),
    file("o\udcff", b"not utf-8"),
    member("p", tarfile.FIFOTYPE, mode=0o600),
]  # fmt: skip


def test_a_layer_and_back(bench: LayerBench) -> None:
    first = archive(bench, bench.diff(bench.add(build_tar(*TREE))))
    assert archive(bench, bench.diff(bench.add(first))) == first
    found = members(first)
    assert list(found) == sorted(found, key=lambda name: os.fsencode(name.replace(".wh.", "")))
    assert {*found} == {info.name for info in (m[0] if isinstance(m, tuple) else m for m in TREE)}
    assert found["a/.wh.gone"].isreg()
    special = found["a/file"]
    assert (special.mode, special.uid, special.mtime, special.size) == (0o4711, 1000, 1_700_000_000.25, 1400)
    assert special.pax_headers["SCHILY.xattr.user.note"] == "n"
    assert special.pax_headers["SCHILY.xattr.security.capability"] == CAPABILITY
    assert (found["a"].mode, found["a"].uid, found["a"].gid, found["a"].mtime) == (0o2750, 7, 8, 77)
    assert found["a/zz"].linkname == "a/file"
    assert found["a/zz"].pax_headers["SCHILY.xattr.security.capability"] == CAPABILITY
    assert found["d"].linkname == "c"
    assert found["c"].linkname == "x" * 300
    assert found["b"].mtime == -3


SCRIPT = """
echo more >> etc/passwd
touch etc/new
rm -r gone; rm usr/lib/a
rm was-file; mkdir was-file; touch was-file/in
rm -r was-dir; echo now > was-dir
mkdir added; touch added/x
"""
CHANGES = """C /etc
A /etc/new
C /etc/passwd
C /usr
C /usr/lib
D /usr/lib/a
C /was-dir
C /was-file
A /was-file/in"""


def test_a_container(bench: LayerBench, tmp_path: Path) -> None:
    """What the kernel leaves in an upper directory, as a layer: applied again it gives the same whole."""
    lower = bench.diff(bench.add(LOWER))
    upper = overlay(tmp_path, lower, SCRIPT)
    layer = archive(bench, upper)
    found = members(layer)
    assert {"usr/lib/.wh.a", ".wh.gone", "was-file/.wh..wh..opq", "was-dir"} <= {*found}
    assert not any(name.startswith("SCHILY") for info in found.values() for name in info.pax_headers)
    applied = bench.diff(bench.add(layer))
    export = read_all(bench.worker.start_export([str(applied), str(lower)]))
    assert read_all(bench.worker.start_export([str(upper), str(lower)])) == export
    whole = members(export)
    assert not any(".wh." in name for name in whole)
    assert "gone" not in whole
    assert {"usr/lib/b", "etc/hosts", "was-file/in", "link"} <= {*whole}
    with bench.worker.start_changes(str(applied), [str(lower)]) as changes:
        listed = [f"{change.kind} {change.path.decode()}" for change in changes]
    assert listed == [
        "A /added",
        "A /added/x",
        *CHANGES.splitlines()[:3],
        "D /gone",
        *CHANGES.splitlines()[3:],
    ]


def test_changes_without_any(bench: LayerBench) -> None:
    lower = str(bench.diff(bench.add(LOWER)))
    with bench.worker.start_changes(lower, []) as changes:
        assert {change.kind for change in changes} == {"A"}
    same = build_tar(directory("etc", mtime=1000), directory("usr/lib", mtime=5), directory("usr", mtime=5))
    with bench.worker.start_changes(str(bench.diff(bench.add(same))), [lower]) as changes:
        assert list(changes) == []


def test_opaque_layers(bench: LayerBench) -> None:
    lower = bench.diff(bench.add(LOWER))
    middle = bench.diff(bench.add(build_tar(file("usr/.wh..wh..opq"), file("usr/only"), file(".wh.etc"))))
    top = bench.diff(bench.add(build_tar(file("etc/back"), file("usr/lib", b"a file now"))))
    whole = members(read_all(bench.worker.start_export([str(top), str(middle), str(lower)])))
    assert {name for name in whole if name.startswith(("usr", "etc"))} == {
        "usr",
        "usr/only",
        "usr/lib",
        "etc",
        "etc/back",
    }
    with bench.worker.start_changes(str(middle), [str(lower)]) as changes:
        listed = [f"{change.kind} {change.path.decode()}" for change in changes]
    assert listed == ["D /etc", "C /usr", "D /usr/lib", "A /usr/only"]
    root = bench.diff(bench.add(build_tar(file(".wh..wh..opq"), file("alone"))))
    assert set(members(read_all(bench.worker.start_export([str(root), str(lower)])))) == {"alone"}
    assert ".wh..wh..opq" in members(archive(bench, root))


def test_sockets_and_what_is_in_the_way(bench: LayerBench, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "escape").symlink_to(tmp_path)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tree / "socket"))
    stream = bench.worker.start_archive(str(tree))
    found = members(read_all(stream))
    assert set(found) == {"escape"}
    assert stream.warnings == ["socket left out: 'socket'"]
    with pytest.raises(HostError, match="cannot read the layer"):
        archive(bench, tree / "escape")


def test_as_many_layers_as_there_may_be(bench: LayerBench) -> None:
    lower = bench.diff(bench.add(build_tar(file("usr/bin/x"))))
    directories = []
    for number in range(500):
        path = lower.parent.parent / f"{number:064x}" / "diff"
        (path / "usr").mkdir(parents=True)
        (path / "usr" / str(number)).touch()
        directories.append(str(path))
    whole = members(read_all(bench.worker.start_export([*directories[1:], str(lower)])))
    assert len(whole) == 502
