"""Nasty but legal layers, unpacked here and by Podman: the two trees must be the same.

What Podman 5.4 refuses (the same name twice, GNU's old sparse files) or does not keep (times before 1970, what
``./`` says of the root) is tested elsewhere.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.test_layers_archive import CAPABILITY
from tests.support import snapshot
from tests.support.fakeregistry import build_tar, file, member
from tests.support.images import ImageMaker, Member, directory, hard_link, symlink
from tests.support.layers import LayerBench, open_layer_bench
from tests.unit.store.test_sparse import ARCHIVES

NOW = time.time_ns()


def raw(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive without its end marks, to which others can be joined."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for entry in members:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        end = buffer.tell()
    return buffer.getvalue()[:end]


BASE = build_tar(
    directory("etc", mtime=100),
    file("etc/passwd", b"root", mtime=100),
    directory("old", mtime=100),
    file("old/a", b"a"),
    file("old/b", b"b"),
    directory("emptied", mtime=100),
    file("emptied/x", b"x"),
    file("was-file", b"x"),
    directory("was-dir/in/side"),
    symlink("was-link", "etc"),
)
STACKS: dict[str, list[bytes]] = {
    "attributes": [
        build_tar(
            directory("d", mode=0o3775, uid=5, gid=6, mtime=1_600_000_000.5),
            file("d/set-uid", b"#!", mode=0o6755, uid=1000, gid=100, mtime=1_600_000_000.123456789),
            file("d/none", b"secret", mode=0),
            file("cap", b"x", uid=33, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY}),
            file("noted", b"x", pax_headers={"SCHILY.xattr.user.note": "one", "SCHILY.xattr.user.note2": ""}),
            directory("noted-dir", mtime=5, pax_headers={"SCHILY.xattr.user.note": "two"}),
            member("fifo", tarfile.FIFOTYPE, mode=0o620, uid=3, mtime=9),
            symlink("link", "no/where"),
            member("tmp", tarfile.DIRTYPE, mode=0o1777, mtime=5),
            file("tmp/late", b"", mtime=6),
        )
    ],
    "names": [
        raw(file("g/" * 150 + "g" * 250, b"gnu"), symlink("gnu-link", "t" * 400), form=tarfile.GNU_FORMAT)
        + raw(file("p" * 250 + "/" + "q" * 250, b"pax"), file("\udcff\udce9", b"latin"), file("new\nline", b""))
        + raw(file("u" * 90 + "/" + "v" * 90, b"ustar"), form=tarfile.USTAR_FORMAT)
        + raw(file("./dotted/./x", b""), file("/absolute", b""), file("a//b", b""), file("back\\slash", b""))
        + build_tar(directory("last/"))
    ],
    "links": [
        build_tar(
            file("b/real", b"one file", uid=7, mtime=50),
            hard_link("a", "b/real"),
            hard_link("c", "./b/../b/real"),
            symlink("sym", "b"),
            hard_link("sym-twin", "sym"),
            file("sym/through", b"x"),
            hard_link("e", "a"),
        )
    ],
    "whiteouts": [
        BASE,
        build_tar(
            file("old/.wh.a"),
            file("emptied/.wh..wh..opq"),
            file("emptied/new", b"n"),
            file(".wh.was-link"),
            file(".wh.was-file"),
            directory("was-file", mtime=3),
            file("was-dir", b"now a file"),
            file("etc/.wh.never-was"),
        ),
    ],
    "two layers": [
        BASE,
        build_tar(
            directory("etc", mode=0o750, uid=12, mtime=200),
            file("etc/passwd", b"changed", mtime=201),
            hard_link("etc/shadow", "etc/passwd"),
            file("implicit/parents/x", b"", uid=5),
            directory("was-link", mtime=3),
        ),
        build_tar(file("etc/third", b""), directory("was-dir", mtime=5)),
    ],
    "sparse": [ARCHIVES["dir/oldest"] + ARCHIVES["dir/real"] + bytes(1024), ARCHIVES["./dir/real"]],
    "headers": [
        build_tar(file("x", b"", mtime=3), form=tarfile.GNU_FORMAT)[:512]
        + tarfile.TarInfo.create_pax_global_header({"comment": "of a commit", "mtime": "5"})
        + build_tar(file("y", b"", mtime=4))
        + b"what follows is of no meaning" * 100,
    ],
    "root": [build_tar(directory("./", mode=0o711, uid=8, mtime=70), file("./x", b""))],
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayerBench]:
    with open_layer_bench(tmp_path_factory.mktemp("store")) as made:
        yield made


def run_inside(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script that mounts something at $place in Podman's user namespace, which is ours; describe it."""
    program = f'{script}\nexec {sys.executable} {snapshot.__file__} "$place"'
    command = ["podman", "unshare", "sh", "-ec", program, "sh", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def forget_times_of_now(tree: dict[str, Any]) -> dict[str, Any]:
    """What no archive gave a time has that of its making."""
    for entry in tree.values():
        if entry["time"] > NOW - 60 * 10**9:
            entry["time"] = "now"
    del tree["."]
    return tree


def list_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    lines = []
    for path in sorted({*ours, *theirs}):
        here, there = ours.get(path, {}), theirs.get(path, {})
        lines += [
            f"{path}: {key}: {here.get(key)}, Podman has {there.get(key)}"
            for key in sorted({*here, *there})
            if here.get(key) != there.get(key)
        ]
    return lines


@pytest.mark.parametrize("name", STACKS)
def test_same_as_podman(bench: LayerBench, images: ImageMaker, tmp_path: Path, name: str) -> None:
    stack = STACKS[name]
    reference = images.add("nasty", base=False, layers=tuple(stack))
    pulled = subprocess.run(
        ["podman", "pull", "-q", "--tls-verify=false", reference], capture_output=True, text=True, check=False
    )
    assert pulled.returncode == 0, pulled.stderr
    theirs = run_inside('place=$(podman image mount "$1")', reference)
    subprocess.run(["podman", "rmi", "-f", reference], capture_output=True, check=True)
    for number, data in enumerate(stack):
        (tmp_path / f"{number}").symlink_to(bench.diff(bench.add(data)))  # mount's options are short
    (tmp_path / "empty").mkdir()
    lowers = ":".join([*(f"{number}" for number in reversed(range(len(stack)))), "empty"])
    mount = 'place=$(mktemp -d); cd "$1"; mount -t overlay overlay -o "userxattr,lowerdir=$2" "$place"'
    ours = run_inside(mount, str(tmp_path), lowers)
    assert list_differences(forget_times_of_now(ours), forget_times_of_now(theirs)) == []
