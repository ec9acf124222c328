"""Podman's store as it lies on disk, and the images that are meant."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeregistry import digest_of
from usercontainerd.base.errors import InvalidArgument, InvalidFormat, InvalidReference, NoSuchImage
from usercontainerd.base.programs import Programs
from usercontainerd.engine.archives.podman_store import PodmanSource, find_podman_store, name_big_data
from usercontainerd.engine.archives.storage_import import choose_stored, locate_graphroot
from usercontainerd.engine.context import Context, build_context
from usercontainerd.oci.digest import Digest
from usercontainerd.store.worker import Worker

IMAGE, OTHER, LAYER, BASE = "a" * 64, "ab" * 32, "c" * 64, "d" * 64
DIFF_ID = digest_of(b"diff")


def never() -> Worker:
    raise AssertionError("nothing is to be read")


def write_store(root: Path, images: Any, layers: Any, driver: str = "overlay") -> None:
    for kind, content in (("images", images), ("layers", layers)):
        directory = root / f"{driver}-{kind}"
        directory.mkdir(parents=True)
        (directory / f"{kind}.lock").touch()
        (directory / f"{kind}.json").write_text(json.dumps(content))


def image(id_: str = IMAGE, *names: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "names": list(names) or None, "layer": LAYER, "big-data-names": ["manifest"], **more}


def layer(id_: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"id": id_, "diff-digest": DIFF_ID, "diff-size": 4, **more}


def test_reading(tmp_path: Path) -> None:
    images = [image(IMAGE, "localhost/a:1"), image(OTHER, layer="")]
    write_store(tmp_path, images, [layer(parent=BASE), layer(BASE, **{"diff-digest": digest_of(b"base")})])
    store = find_podman_store(str(tmp_path))
    assert store.driver == "overlay"
    first, second = store.read_images()
    assert (first.id, first.names, first.layer) == (IMAGE, ("localhost/a:1",), LAYER)
    assert (second.names, second.layer) == ((), "")
    layers = store.read_layers()
    source = PodmanSource(store, first, layers, never)
    (described,) = source.describe_layers([Digest(DIFF_ID)])
    assert (described.digest, described.size) == (DIFF_ID, 4)
    with pytest.raises(InvalidFormat, match="lacks its layer"):
        source.describe_layers([Digest(digest_of(b"other"))])
    assert store.files(layers[LAYER]) == (
        f"{tmp_path}/overlay/{LAYER}/diff",
        f"{tmp_path}/overlay-layers/{LAYER}.tar-split.gz",
    )
    directory = tmp_path / "overlay-images" / IMAGE
    directory.mkdir()
    (directory / "manifest").write_bytes(b"{}")
    assert source.fetch_manifest("latest").data == b"{}"
    with pytest.raises(NoSuchImage):
        source.fetch_manifest(digest_of(b"other"))


@pytest.mark.parametrize(
    ("images", "layers", "message"),
    [
        ([image("../../etc")], [layer()], "is not an ID"),
        ([image(layer="/etc")], [layer()], "is not an ID"),
        ([image()], [layer("x")], "is not an ID"),
        ([image()], [layer(parent="..")], "is not an ID"),
        ([image()], [], "is not in Podman's store"),
        ([image()], [layer(parent=LAYER)], "too many layers"),
        ([image()], [layer(flags={"incomplete": True})], "has not finished"),
        ({"id": IMAGE}, [], "expected an array"),
        ([7], [], "expected an object"),
    ],
)
def test_hostile(tmp_path: Path, images: Any, layers: Any, message: str) -> None:
    write_store(tmp_path, images, layers)
    store = find_podman_store(str(tmp_path))
    with pytest.raises(InvalidFormat, match=message):
        PodmanSource(store, store.read_images()[0], store.read_layers(), never)


def test_drivers(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no images of Podman's here"):
        find_podman_store(str(tmp_path))
    write_store(tmp_path, [], [], "vfs")
    assert find_podman_store(str(tmp_path), "overlay").driver == "vfs"
    write_store(tmp_path, [], [], "overlay")
    assert find_podman_store(str(tmp_path), "vfs").driver == "vfs"
    assert find_podman_store(str(tmp_path), "btrfs").driver == "overlay"


def test_big_data() -> None:
    assert name_big_data("manifest") == "manifest"
    assert name_big_data("sha256:1") == "=c2hhMjU2OjE="
    for key in ("..", "../x", "a/b", "A"):
        assert name_big_data(key).startswith("=")
    for key in ("\u00bf?\u00bf?", "k" * 300 + "_"):
        with pytest.raises(InvalidFormat):
            name_big_data(key)


def test_which_are_meant(tmp_path: Path) -> None:
    write_store(
        tmp_path,
        [
            image(IMAGE, "docker.io/library/app:latest", "localhost/own:1"),
            image(OTHER, "quay.io/team/tool:latest", "quay.io/other/app:latest"),
        ],
        [],
    )
    images = find_podman_store(str(tmp_path)).read_images()

    def chosen(*words: str) -> list[str]:
        return [each.id for each in choose_stored(images, words)]

    assert chosen() == [IMAGE, OTHER]
    assert chosen("own:1") == chosen("docker.io/library/app") == chosen("aaaa") == [IMAGE]
    assert chosen("tool", "abab") == chosen("sha256:abab") == [OTHER]
    assert chosen("tool", "own:1") == [IMAGE, OTHER]
    with pytest.raises(InvalidReference, match="several"):
        chosen("app")
    with pytest.raises(NoSuchImage):
        chosen("nope")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return build_context({"HOME": str(tmp_path)}, Programs("/x"), os.getuid(), os.getgid())


def test_place(context: Context, tmp_path: Path) -> None:
    default = (f"{tmp_path}/.local/share/containers/storage", None)
    assert locate_graphroot(context) == default
    path = tmp_path / ".config" / "containers" / "storage.conf"
    path.parent.mkdir(parents=True)
    for text, expected in (
        ('[storage]\ndriver = "vfs"\n', (default[0], "vfs")),
        ('[storage]\ngraphroot = "/srv/x"\ndriver = "overlay"', ("/srv/x", "overlay")),
        (
            '[storage]\nrootless_storage_path = "/srv/$USER/${UID}$HOME"',
            (f"/srv/{context.user}/{context.uid}{tmp_path}", None),
        ),
        ("", default),
    ):
        path.write_text(text)
        assert locate_graphroot(context) == expected
    path.write_text("[storage")
    with pytest.raises(InvalidFormat, match=r"storage\.conf"):
        locate_graphroot(context)
