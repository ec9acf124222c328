"""Layers out of the store again: the exact archives that came in, and what is said of those that changed."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import build_tar, file, member
from tests.support.images import directory, hard_link, symlink
from tests.support.layers import LayerBench, open_layer_bench
from usercontainerd.base.errors import StoreError
from usercontainerd.engine.images.layer_streams import compress_layer, open_layer_tar
from usercontainerd.store.compress import Compression
from usercontainerd.store.recipe import MAX_LOST

BIG = random.Random(5).randbytes(900_000)
TREE = build_tar(
    directory(".", mode=0o711, uid=3),
    directory("etc/"),
    file("etc/passwd", b"root", uid=1, gid=2, mtime=-5),
    file("etc/secret", b"x" * 513, mode=0o000, uid=1000),
    file("big", BIG),
    symlink("lib", "etc"),
    file("lib/through", b"link" * 200),
    hard_link("etc/again", "etc/passwd"),
    file("etc/.wh.gone", b"with content"),
    member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    file("name" * 60, b"long", pax_headers={"comment": "é" * 300}),
    file("replaced", b"first"),
    file("replaced", b"second"),
    hard_link("kept", "replaced"),
    file("kept", b"third"),
    file("dir/inner/a", b"lost with its directory"),
    file("dir", b"now a file"),
    file("now-a-link", b"lost"),
    symlink("now-a-link", "etc"),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayerBench]:
    with open_layer_bench(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.mark.parametrize(
    "data",
    [
        TREE,
        TREE + b"what follows" * 5000,
        TREE[:-1024].rstrip(b"\0") + bytes(-len(TREE[:-1024].rstrip(b"\0")) % 512),
        build_tar(),
        b"",
        build_tar(*(file(f"{n:03}/{n}", b"%d" % n * n) for n in range(600)), form=tarfile.GNU_FORMAT),
    ],
    ids=["tree", "trailing", "no-end-mark", "no-entry", "no-byte", "gnu"],
)
def test_exact_archives(bench: LayerBench, data: bytes) -> None:
    diff_id = bench.add(data)
    assert bench.layers.has_recipe(diff_id)
    assert bench.rebuild(diff_id) == data


def test_recipes_are_private_and_small(bench: LayerBench) -> None:
    recipe = bench.diff(bench.add(TREE + b"\0" * 512)).parent / "recipe"
    assert recipe.stat().st_mode & 0o777 == 0o600
    assert recipe.stat().st_size < 4000


def test_too_much_lost_content(bench: LayerBench) -> None:
    lost = bytes(MAX_LOST + 1)
    unpacked, path = bench.unpack(build_tar(file("a", lost), file("a", b"now")))
    assert unpacked.needs_blob
    assert os.stat(f"{path}/recipe").st_size == 0
    unpacked, _ = bench.unpack(build_tar(file("a", lost[2:]), file("a", b"now")))
    assert not unpacked.needs_blob


def test_layers_without_a_recipe(bench: LayerBench) -> None:
    diff_id = bench.add(build_tar(file("old")))
    (bench.diff(diff_id).parent / "recipe").unlink()
    assert not bench.layers.has_recipe(diff_id)
    with pytest.raises(StoreError, match=r"without a record of it .*pull it again"):
        bench.rebuild(diff_id)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: path.write_bytes(b"longer than before"),
            "'f' is not what was unpacked: it has 18 bytes",
        ),
        (lambda path: path.write_bytes(b"s"), "it has 1 bytes"),
        (lambda path: path.write_bytes(b"CONTENT"), "its files now make sha256:"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "is not what was unpacked"),
    ],
)
def test_changed_layers(bench: LayerBench, change: object, message: str) -> None:
    diff_id = bench.add(build_tar(file("f", b"content"), file(message)))
    change(bench.diff(diff_id) / "f")  # type: ignore[operator]
    with pytest.raises(StoreError, match=f"layer sha256:.*{message}.*pull it again"):
        bench.rebuild(diff_id)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:40], lambda data: b"x" + data, lambda data: data + data[23:]],
)
def test_damaged_recipes(bench: LayerBench, damage: object) -> None:
    diff_id = bench.add(build_tar(file("f", b"content"), file(str(id(damage)))))
    recipe = bench.diff(diff_id).parent / "recipe"
    recipe.write_bytes(damage(recipe.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StoreError, match="recipe is damaged"):
        bench.rebuild(diff_id)


def test_giving_up_early(bench: LayerBench) -> None:
    diff_id = bench.add(build_tar(file("f", BIG * 3)))
    with open_layer_tar(bench.context, bench.worker, diff_id) as tar:
        assert tar.read(10) == build_tar(file("f", BIG * 3))[:10]
    assert bench.rebuild(diff_id) == build_tar(file("f", BIG * 3))


@pytest.mark.parametrize("compression", list(Compression))
def test_compressed_again(bench: LayerBench, compression: Compression, tmp_path: Path) -> None:
    diff_id = bench.add(TREE)
    path = tmp_path / "layer"
    results = []
    for _ in range(2):
        with path.open("wb") as target, open_layer_tar(bench.context, bench.worker, diff_id) as tar:
            results.append(compress_layer(tar, target.write, compression=compression))
    blob = path.read_bytes()
    assert results[0] == results[1]
    assert (results[0].size, results[0].digest) == (len(blob), f"sha256:{hashlib.sha256(blob).hexdigest()}")
    suffix = "" if compression is Compression.NONE else f"+{compression}"
    assert results[0].media_type == f"application/vnd.oci.image.layer.v1.tar{suffix}"
    if compression is Compression.GZIP:
        assert gzip.decompress(blob) == TREE
    unpacked, _ = bench.unpack(blob)
    assert unpacked.diff_id == diff_id
    if compression is not Compression.NONE:
        program = {Compression.GZIP: "gzip", Compression.ZSTD: "zstd"}[compression]
        if subprocess.run(["which", program], capture_output=True).returncode == 0:
            subprocess.run([program, "-t"], input=blob, check=True)
