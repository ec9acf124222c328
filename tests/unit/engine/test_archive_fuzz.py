"""Archives with arbitrary damage: what comes is an error of ours, or the right bytes."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from tests.support.archives import SMALL_LAYER, Layout, build_docker_archive, pack
from tests.support.fakeregistry import OCI_INDEX, OCI_MANIFEST, digest_of
from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.paths import Paths
from usercontainerd.engine.archives.input import make_seekable
from usercontainerd.engine.archives.loading import list_archive
from usercontainerd.engine.archives.members import TarMembers
from usercontainerd.oci.manifest import Index, parse_manifest
from usercontainerd.store.layout import Store

ROUNDS = 400


def build_archives() -> list[bytes]:
    layout = Layout()
    layout.add_image([SMALL_LAYER, os.urandom(3000)], "a/b:1")
    inner = layout.add_document(layout.build_image([SMALL_LAYER], variant="v8"), OCI_MANIFEST)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}
    layout.entries.append(layout.add_document(index, OCI_INDEX, name="a/c:1"))
    other = os.urandom(3000)
    files = build_docker_archive([SMALL_LAYER, other], ["x:1", "y"])
    docker = pack({**files, f"{digest_of(other)[7:]}/layer.tar": gzip.compress(other, mtime=0)})
    return [pack(layout.build()), docker, gzip.compress(docker, mtime=0)]


def damage(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(changed))
        kind = dice.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at] = dice.choice(b'\0\xff"[{0/.x')
        elif kind == 2:
            del changed[at : at + dice.choice((1, 512, 700))]
        elif kind == 3:
            start = dice.randrange(len(changed))
            changed[at:at] = changed[start : start + dice.choice((1, 512, 1024))]
        else:
            changed[at : at + 512] = changed[(at // 512) * 512 : (at // 512) * 512 + 512]
        if not changed:
            return b""
    return bytes(changed)


def read_all(store: Store, path: Path) -> None:
    """All that a load reads; every byte that is handed on has the digest that it was asked for by."""
    fd = os.open(path, os.O_RDONLY)
    try:
        seekable = make_seekable(store, fd, where="x", report=lambda _done: None)
    finally:
        os.close(fd)
    members = TarMembers(seekable, "x")
    try:
        for image in list_archive(members):
            fetched = image.source.fetch_manifest("latest")
            assert digest_of(fetched.data) == fetched.digest
            document = parse_manifest(fetched.data, fetched.media_type)
            if isinstance(document, Index):
                continue
            image.source.fetch_blob(document.config, limit=1 << 20)
            for layer in document.layers:
                data: list[bytes] = []
                image.source.copy_blob(layer, data.append)
                assert digest_of(b"".join(data)) == layer.digest
    finally:
        members.close()


@pytest.mark.parametrize("seed", range(3))
def test_arbitrary_damage(tmp_path: Path, seed: int) -> None:
    store = Store(
        Paths.from_environment({"XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path)}, 1000)
    )
    dice = random.Random(seed)
    archive = build_archives()[seed]
    path = tmp_path / "archive"
    path.write_bytes(archive)
    read_all(store, path)  # whole, it can be read
    open_before = len(os.listdir("/proc/self/fd"))
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(damage(archive, dice))
        try:
            read_all(store, path)
        except UsercontainerError as error:
            assert str(error)
            refused += 1
    assert refused > ROUNDS // 4
    assert len(os.listdir("/proc/self/fd")) == open_before
