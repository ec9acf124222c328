"""Hard links to files of lower layers: one file under two names, and never another image's file."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.test_layers_archive import CAPABILITY, members, read_all
from tests.support.fakeregistry import build_tar, digest_of, file, member
from tests.support.images import ImageMaker, directory, hard_link, symlink
from tests.support.layers import LayerBench, open_layer_bench
from usercontainerd.base.errors import InvalidFormat, StoreError
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.oci.digest import Digest, parse_digest

LOWER = build_tar(
    directory("etc", mode=0o750, uid=3, mtime=77),
    file("etc/real", b"content" * 100, mode=0o4711, uid=1000, mtime=1_700_000_000.5,
         pax_headers={"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": CAPABILITY}),
    symlink("etc/sym", "real"),
    file("gone", b"x"),
    directory("dir"),
)  # fmt: skip
LINKS = build_tar(
    directory("usr", mtime=88),
    hard_link("usr/twin", "etc/real"),
    hard_link("usr/third", "usr/twin"),
    hard_link("sym-twin", "etc/sym"),
    hard_link("taken-later", "etc/real"),
    file("taken-later", b"own"),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayerBench]:
    with open_layer_bench(tmp_path_factory.mktemp("store")) as made:
        yield made


def export(bench: LayerBench, *directories: str) -> dict[str, tarfile.TarInfo]:
    return members(read_all(bench.worker.start_export(directories)))


def test_links_to_lower_files(bench: LayerBench) -> None:
    lower = str(bench.diff(bench.add(LOWER)))
    unpacked, path = bench.unpack(LINKS, defer_links=True)
    assert unpacked.links == 3
    for _ in range(2):  # the second time it is compared
        bench.worker.resolve_links(path, [lower])
    diff = f"{path}/diff"
    names = ("etc/real", "usr/twin", "usr/third")
    assert len({os.stat(f"{diff}/{name}").st_ino for name in names}) == 1
    assert os.lstat(f"{diff}/sym-twin").st_ino == os.lstat(f"{diff}/etc/sym").st_ino
    assert Path(diff, "taken-later").read_bytes() == b"own"
    found, before = export(bench, diff, lower), export(bench, lower)
    for name in ("etc", "etc/real", "etc/sym"):
        for key in ("mode", "uid", "gid", "mtime", "size", "linkname", "pax_headers"):
            assert getattr(found[name], key) == getattr(before[name], key), (name, key)
    assert found["usr"].mtime == 88
    assert found["usr/twin"].linkname == found["usr/third"].linkname == "etc/real"


@pytest.mark.parametrize(
    "layer",
    [
        [hard_link("l", "no/where")],
        [hard_link("l", "dir")],
        [file(".wh.gone"), hard_link("l", "gone")],
        [file("etc/.wh..wh..opq"), hard_link("l", "etc/real")],
        [hard_link("l", "etc/sym/real")],
        [hard_link("l", "m"), hard_link("m", "l")],
    ],
)
def test_links_to_nothing(bench: LayerBench, layer: list[Any]) -> None:
    lower = str(bench.diff(bench.add(LOWER)))
    with pytest.raises(InvalidFormat, match="hard link 'l'"):
        _, path = bench.unpack(build_tar(*layer), defer_links=True)
        bench.worker.resolve_links(path, [lower])


@pytest.mark.parametrize(
    "other",
    [
        [file("etc/real", b"CONTENT" * 100, mode=0o4711, uid=1000, mtime=1_700_000_000.5)],
        [file("etc/real", b"content" * 100, mode=0o755, uid=1000, mtime=1_700_000_000.5)],
        [file("etc/real", b"content" * 100, mode=0o4711, uid=1000, mtime=1_700_000_000.5)],
    ],
    ids=["content", "mode", "attributes"],
)
def test_never_another_images_file(bench: LayerBench, other: list[Any]) -> None:
    _, path = bench.unpack(LINKS, defer_links=True)
    bench.worker.resolve_links(path, [str(bench.diff(bench.add(LOWER)))])
    with pytest.raises(StoreError, match="another image has the same layer above another 'etc/real'"):
        bench.worker.resolve_links(path, [str(bench.diff(bench.add(build_tar(*other))))])
    with pytest.raises(InvalidFormat, match="no file of its layer"):
        bench.worker.resolve_links(path, [])


def test_pulled(bench: LayerBench, images: ImageMaker) -> None:
    """The lower layer may come later, and an image with another one below is refused as long as this one is here."""
    layer = build_tar(hard_link("twin", "etc/real"), member("unique", tarfile.DIRTYPE))
    pull_image(bench.context, images.add("linked", base=False, layers=(LOWER, layer)))
    diff_id: Digest = parse_digest(digest_of(layer))
    diff = bench.diff(diff_id)
    assert os.stat(diff / "twin").st_ino == os.stat(diff / "etc/real").st_ino
    assert bench.rebuild(diff_id) == layer
    evil = build_tar(directory("etc"), file("etc/real", b"evil"))
    with pytest.raises(StoreError, match=r"another image has the same layer .*remove that image first"):
        pull_image(bench.context, images.add("evil", base=False, layers=(evil, layer)))
    pull_image(bench.context, images.add("again", base=False, layers=(LOWER, layer), settings={"User": "1"}))
