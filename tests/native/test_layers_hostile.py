"""Layers made to harm, unpacked for real: refused or contained, and nothing beside the layer's files changes."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import build_tar, file, member
from tests.support.images import Member, directory, hard_link, symlink
from tests.support.layers import LayerBench, open_layer_bench
from tests.support.tarfuzz import damage_archive, make_archive
from tests.unit.store.test_sparse import build_old, build_pax
from tests.unit.store.test_tar import header
from usercontainerd.base.errors import HostError, InvalidFormat, UsercontainerError
from usercontainerd.store.worker import UnpackLimits

FUZZED = 150  # archives, half of them damaged
UP = "../" * 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def bench(place: Path) -> Iterator[LayerBench]:
    with open_layer_bench(place / "store") as made:
        yield made


@pytest.fixture(scope="module")
def victim(place: Path) -> Path:
    """What the layers are after; it has one name only, so that the archives can name it."""
    path = place / "victim"
    path.mkdir()
    (path / "secret").write_text("secret")
    return path


def describe(path: Path) -> list[tuple[object, ...]]:
    """All that may not change of what is outside of the layers."""
    found: list[tuple[object, ...]] = []
    for entry in [path, *sorted(path.rglob("*"))]:
        status = entry.lstat()
        content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((entry, status.st_ino, status.st_mode, status.st_nlink, status.st_mtime_ns, content))
    return found


def names_outside(victim: Path) -> dict[str, list[Member]]:
    """Ways to reach ``victim``."""
    inside = str(victim).lstrip("/")
    return {
        "climbing": [file(f"{UP}{inside}/evil", b"x")],
        "climbing-later": [directory("a"), file(f"a/b/../../{UP}{inside}/evil", b"x")],
        "absolute": [file(f"{victim}/secret", b"evil")],
        "through-link": [symlink("l", str(victim)), file("l/evil", b"x")],
        "through-climbing-link": [directory("d"), symlink("d/l", UP + inside), file("d/l/evil", b"x")],
        "through-own-copy": [directory(inside), symlink("l", f"/{inside}"), file("l/secret", b"evil")],
        "swapped": [directory("d"), file("d/x", b""), symlink("d", str(victim)), file("d/secret", b"evil")],
        "swapped-parent": [directory("a/b"), symlink("a", str(victim.parent)), file(f"a/{victim.name}/secret", b"x")],
        "hard-link": [hard_link("h", f"{victim}/secret"), file("h", b"evil")],
        "hard-link-through-link": [symlink("l", str(victim)), hard_link("h", "l/secret")],
        "hard-link-to-link": [symlink("l", f"{victim}/secret"), hard_link("h", "l"), file("h", b"evil")],
        "hard-link-mode": [symlink("l", f"{victim}/secret"), member("h", tarfile.LNKTYPE, linkname="l", mode=0o7777)],
        "proc-root": [symlink("p", f"/proc/self/root{victim}"), file("p/evil", b"x")],
        "proc-cwd": [symlink("p", "/proc/self/cwd/.."), file("p/recipe", b"x")],
        "proc-fd": [symlink("p", "/proc/self/fd/3"), file("p/evil", b"x"), hard_link("h", "/proc/self/exe")],
        "whiteout": [symlink("l", str(victim)), file("l/.wh.secret")],
        "opaque": [symlink("l", str(victim)), file("l/.wh..wh..opq")],
        "opaque-is-a-link": [symlink(".wh..wh..opq", str(victim))],
        "whiteout-up": [file(".wh...", b""), file("a/.wh..")],
        "inside-whiteout": [directory(".wh.x"), file(".wh.x/../../evil", b"")],
        "mode": [symlink("l", str(victim)), directory("l", mode=0o777), directory("l/../l", mode=0)],
        "time": [symlink("l", str(victim)), member("l", tarfile.DIRTYPE, mtime=1)],
        "fifo": [member("f", tarfile.FIFOTYPE), file("f", b"into"), member("g", tarfile.FIFOTYPE), hard_link("h", "g")],
        "fifo-bomb": [member(f"f{n}", tarfile.FIFOTYPE) for n in range(2000)],
        "devices": [member("sda", tarfile.BLKTYPE, devmajor=8), member("mem", tarfile.CHRTYPE, devmajor=1, devminor=1),
                    file("sda", b"x"), hard_link("k", "mem")],
        "link-loop": [symlink("a", "b"), symlink("b", "a"), file("a/x", b"")],
        "long-link-chain": [*(symlink(f"l{n}", f"l{n + 1}") for n in range(50)), directory("l50"), file("l0/x", b"")],
        "deep": [file("d/" * 2000 + "x", b"")],
        "deeper": [file("d/" * 2100 + "x", b"")],
    }  # fmt: skip


def test_nothing_outside_changes(bench: LayerBench, victim: Path) -> None:
    before = describe(victim)
    above = victim.parent
    for name, members in names_outside(victim).items():
        beside = sorted(os.listdir(above)), sorted(os.listdir(bench.store.root))
        try:
            _, path = bench.unpack(build_tar(*members))
        except InvalidFormat:
            path = ""
        assert describe(victim) == before, name
        assert (sorted(os.listdir(above)), sorted(os.listdir(bench.store.root))) == beside, name
        if path:
            assert sorted(os.listdir(path)) == ["diff", "recipe"], name
            assert not any(stat.S_ISBLK(entry.lstat().st_mode) for entry in Path(path, "diff").rglob("*"))


def sized(field: bytes) -> bytes:
    return bytes(header(at124=field))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sized(b"\x80" + b"\xff" * 11), "beyond all bounds"),
        (sized(b"\x80\0\0\0\x7f" + b"\xff" * 7), "ends in the middle|more than the"),
        (sized(b"77777777777\0"), "ends in the middle|more than the"),
        (build_tar(file("x", b"x", pax_headers={"size": str((1 << 63) - 1)})), "ends in the middle|more than the"),
        (build_tar(file("x", b"x", pax_headers={"size": "9" * 30})), "not a number"),
        (build_tar(file("x", b"x", pax_headers={"size": str(1 << 63)})), "not a number"),
        (build_old([(0, 1)], (1 << 33) - 1, b"x"), "more than the"),
        (build_old([(1 << 32, 1)], 1 << 32, b"x"), "beyond its end"),
        (build_pax("1.0", (1 << 63) - 1, [(0, 1)], b"x"), "more than the"),
        (build_tar(*(file(f"{n}", b"") for n in range(1001))), "more than the 1000 entries"),
        (build_tar(file("b" * 256, b"")), "File name too long"),
    ],
)  # fmt: skip
def test_sizes(bench: LayerBench, data: bytes, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message):
        bench.unpack(data, UnpackLimits(size=1 << 30, entries=1000))


def test_floods_of_attributes(bench: LayerBench) -> None:
    flood = {f"SCHILY.xattr.user.{n}": "v" * 200 for n in range(4000)}
    try:
        bench.unpack(build_tar(file("x", b"", pax_headers=flood)))
    except HostError as error:
        assert "do not fit" in str(error)
    with pytest.raises(InvalidFormat, match="longer than the 1048576"):
        bench.unpack(build_tar(file("x", b"", pax_headers={**flood, "comment": "c" * 400_000})))


def test_holes_stay_holes(bench: LayerBench) -> None:
    _, path = bench.unpack(build_pax("1.0", 1 << 30, [((1 << 30) - 1, 1)], b"x"))
    status = os.stat(f"{path}/diff/dir/real")
    assert status.st_size == 1 << 30
    assert status.st_blocks < 100


def test_fuzzed(bench: LayerBench, victim: Path) -> None:
    """A fixed set: what fails here fails again."""
    before = describe(victim)
    taken = 0
    for seed in range(FUZZED):
        data = make_archive(seed)
        if seed % 2:
            data = damage_archive(data, seed)
        try:
            diff_id = bench.add(data)
        except UsercontainerError as error:
            assert "Traceback" not in str(error)
            assert "died" not in str(error)
            continue
        taken += 1
        assert bench.rebuild(diff_id) == data, seed
    assert describe(victim) == before
    assert taken > FUZZED // 8
