"""Loading images from files as an unprivileged user: what is in them reaches the store only when it is right."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import SMALL_LAYER, Files, Layout, build_docker_archive, pack, spread
from tests.support.fakeregistry import OCI_INDEX, OCI_MANIFEST, build_tar, digest_of, file, member
from usercontainerd.base.errors import DigestMismatch, InvalidFormat, NoSuchImage, UsercontainerError
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.archives.loading import LoadedImage, load_images, pull_archived
from usercontainerd.engine.archives.saving import save_images
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.local import empty_trash, list_images, open_images
from usercontainerd.engine.images.removal import remove_image
from usercontainerd.engine.transfers import layer_fetching
from usercontainerd.oci.digest import Digest
from usercontainerd.store.layout import Store
from usercontainerd.store.partial import PartialBlob, open_partial
from usercontainerd.store.recipe import MAX_LOST

OTHER_LAYER = build_tar(member("etc", tarfile.DIRTYPE), file("etc/motd", b"hello"))


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """Alice with a store of her own."""
    environment = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    context = build_context(environment, find_programs(), os.getuid(), os.getgid())
    yield context
    store = Store(context.paths)
    if os.path.isdir(store.root):
        assert os.listdir(store.staging) == []
        os.rename(store.layers, f"{store.trash}/layers")
        empty_trash(context)
        assert os.listdir(store.trash) == []


def load(context: Context, data: bytes, tmp_path: Path) -> list[LoadedImage]:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return load_images(context, str(path))


def snapshot(context: Context) -> list[str]:
    """Every file of the store but for its format and locks."""
    root = context.paths.data
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(root)
        for name in names
        if not directory.endswith("/locks") and (directory, name) != (root, "format")
    )


def content(context: Context, image: LoadedImage, name: str) -> bytes:
    (directory, *_) = open_images(context).layer_directories(image.record)
    return Path(directory, name).read_bytes()


def test_several_formats_one_image(context: Context, tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.add_image([SMALL_LAYER], "quay.io/a/b:1")
    docker = pack(build_docker_archive([SMALL_LAYER], ["b:2", "b:3"]))
    (first,) = load(context, pack(layout.build()), tmp_path)
    (second,) = load(context, gzip.compress(docker), tmp_path)
    (third,) = load_images(context, str(spread(layout.build(), tmp_path / "layout")))
    assert first.record.id == second.record.id == third.record.id
    assert first.names == third.names == ("quay.io/a/b:1",)
    assert second.names == ("docker.io/library/b:2", "docker.io/library/b:3")
    (image,) = list_images(context)
    assert sorted(name.name for name in image.names) == sorted((*first.names, *second.names))
    assert first.record.manifest == entry["digest"]
    assert content(context, first, "bin/sh") == b"#!"


def test_only_what_is_needed_is_written_twice(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def count(store: Store, digest: Digest) -> PartialBlob | None:
        opened.append(str(digest))
        return open_partial(store, digest)

    monkeypatch.setattr(layer_fetching, "open_partial", count)
    # What goes lost while it is unpacked is too much for a recipe: this layer can be given away only as it came.
    lost = build_tar(file("a", bytes(MAX_LOST + 1)), file("a", b"now"), file("b", b"x" * 600))
    layout = Layout()
    layout.add_image([SMALL_LAYER, lost, OTHER_LAYER], "localhost/lost:1")
    load(context, pack(layout.build()), tmp_path)
    store = open_images(context).store
    blobs = [digest_of(gzip.compress(layer, 1, mtime=0)) for layer in (SMALL_LAYER, lost, OTHER_LAYER)]
    assert opened == [blobs[1]]
    assert [os.path.exists(store.blob(Digest(blob))) for blob in blobs] == [False, True, False]
    assert os.listdir(store.partial) == []
    saved = tmp_path / "saved.tar"
    save_images(context, ["localhost/lost:1"], path=str(saved))
    assert lost in saved.read_bytes()


def test_nameless_image_stays(context: Context, tmp_path: Path) -> None:
    (loaded,) = load(context, pack(build_docker_archive([SMALL_LAYER])), tmp_path)
    assert loaded.names == ()
    (image,) = list_images(context)
    assert image.names == ()
    assert open_images(context).blobs.has(image.manifest)
    remove_image(context, image.id.hex)
    assert list_images(context) == []


def test_platform_is_chosen(context: Context, tmp_path: Path) -> None:
    layout = Layout()
    ours = layout.add_document(layout.build_image([SMALL_LAYER]), OCI_MANIFEST)
    other = layout.add_document(layout.build_image([OTHER_LAYER], architecture="s390x"), OCI_MANIFEST)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {**other, "platform": {"os": "linux", "architecture": "s390x"}},
            {**ours, "platform": {"os": "linux", "architecture": "amd64"}},
        ],
    }
    layout.entries.append(layout.add_document(index, OCI_INDEX, name="a/b:1"))
    files = layout.build()
    # An archive of one platform has the index, but not the other's blobs.
    del files[f"blobs/sha256/{other['digest'][7:]}"]
    (loaded,) = load(context, pack(files), tmp_path)
    assert loaded.record.manifest == ours["digest"]
    assert list(loaded.record.names[0].digests) == [layout.entries[0]["digest"], ours["digest"]]


def test_pull_of_one_from_many(context: Context, tmp_path: Path) -> None:
    layout = Layout()
    layout.add_image([SMALL_LAYER], "a/one:1")
    layout.add_image([OTHER_LAYER], "a/two:2")
    (tmp_path / "x.tar").write_bytes(pack(layout.build()))
    (pulled,) = pull_archived(context, f"oci-archive:{tmp_path}/x.tar:a/two:2")
    assert pulled.names == ("localhost/a/two:2",)
    assert content(context, pulled, "etc/motd") == b"hello"
    with pytest.raises(NoSuchImage, match="which one"):
        pull_archived(context, f"oci-archive:{tmp_path}/x.tar")
    for text in (f"oci:{tmp_path}/x.tar", f"dir:{tmp_path}/x.tar", f"oci-archive:{tmp_path}", "oci:"):
        with pytest.raises(UsercontainerError, match=r"is for|names no file"):
            pull_archived(context, text)
    assert len(load_images(context, str(tmp_path / "x.tar"))) == 2


def other_blob(files: Files, digest: str, data: bytes) -> Files:
    return {**files, f"blobs/sha256/{digest[7:]}": data}


def build_hostile() -> dict[str, tuple[bytes, str]]:
    """An archive for each trick, and what has to be said about it."""
    layout = Layout()
    entry = layout.add_image([SMALL_LAYER], "a/b:1")
    files = layout.build()
    manifest = json.loads(files[f"blobs/sha256/{entry['digest'][7:]}"])
    layer, config = manifest["layers"][0]["digest"], manifest["config"]["digest"]
    docker = build_docker_archive([SMALL_LAYER], ["a:1"])
    docker_layer = next(name for name in docker if name.endswith("layer.tar"))

    nested = Layout()
    inner = nested.add_document(nested.build_image([SMALL_LAYER]), OCI_MANIFEST)
    for _ in range(2):
        inner = nested.add_document(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}, OCI_INDEX
        )
    nested.entries.append({**inner, "annotations": {"org.opencontainers.image.ref.name": "a/b:1"}})

    lying = Layout()
    lie = lying.build_image([SMALL_LAYER])
    lie["layers"][0]["digest"] = lying.add_blob(gzip.compress(OTHER_LAYER, mtime=0))
    lie["layers"][0]["size"] = len(gzip.compress(OTHER_LAYER, mtime=0))
    lying.entries.append(lying.add_document(lie, OCI_MANIFEST, name="a/b:1"))

    bomb = Layout()
    bomb.add_image([build_tar(file("zeros", bytes(1 << 20)))], "a/b:1", compress=lambda _: BOMB)

    climbing = Layout()
    climbing.add_image([build_tar(file("../../escaped", b"x"))], "a/b:1")

    swapped = dict(docker)
    blob = swapped.pop(docker_layer)
    links = [
        (docker_layer, "../../../../../../etc/passwd"),
        (docker_layer, "/etc/passwd"),
        (docker_layer, "layer.tar"),
    ]
    good = pack(files)
    return {
        "changed layer": (pack(other_blob(files, layer, gzip.compress(OTHER_LAYER, mtime=0))), layer),
        "changed configuration": (pack(other_blob(files, config, b"{}")), config),
        "changed manifest": (pack(other_blob(files, entry["digest"], b"{}")), entry["digest"]),
        "longer layer": (
            pack(other_blob(files, layer, gzip.compress(SMALL_LAYER, 1, mtime=0) + b"\0")),
            layer,
        ),
        "layer of another diffID": (pack(lying.build()), digest_of(SMALL_LAYER)),
        "missing layer": (pack({k: v for k, v in files.items() if layer[7:] not in k}), "not in the archive"),
        "index of indexes": (pack(nested.build()), "leads to another index"),
        "bomb": (pack(bomb.build()), "bomb"),
        "layer that climbs": (pack(climbing.build()), "leads out of the layer"),
        "changed layer of docker's": (pack({**docker, docker_layer: OTHER_LAYER}), digest_of(SMALL_LAYER)),
        **{
            f"layer is a link to {target}": (
                pack(swapped, member(name, tarfile.SYMTYPE, linkname=target)),
                "not in the archive",
            )
            for name, target in links
        },
        "layer is a device": (
            pack(swapped, member(docker_layer, tarfile.CHRTYPE, devmajor=1, devminor=5)),
            "not in the archive",
        ),
        "layer is cut off": (pack({**docker, docker_layer: blob[:700]}), "bytes|expected"),
        "manifest.json twice": (pack(docker, file("manifest.json", b"[]")), "2 times"),
        "cut off": (good[: good.index(b"index.json")], "no images"),
        "cut off in a file": (pack(docker)[: pack(docker).index(SMALL_LAYER) + 512], "ends in the middle"),
        "compressed and cut off": (gzip.compress(good)[:-30], "too early"),
        "nothing": (b"", "holds no images"),
    }


def build_bomb() -> bytes:
    """A gigabyte of zeros and some more, in a few kilobytes for each: members that repeat."""
    one = gzip.compress(bytes(64 << 20), 9, mtime=0)
    return one * 18


BOMB = build_bomb()
HOSTILE = build_hostile()


@pytest.mark.parametrize("trick", HOSTILE)
def test_hostile_archives(context: Context, tmp_path: Path, trick: str) -> None:
    load(context, pack(build_docker_archive([OTHER_LAYER], ["kept:1"])), tmp_path)
    before = snapshot(context)
    data, message = HOSTILE[trick]
    with pytest.raises((InvalidFormat, DigestMismatch), match=message):
        load(context, data, tmp_path)
    assert snapshot(context) == before
    assert len(list_images(context)) == 1


def test_command(context: Context, tmp_path: Path) -> None:
    """The command itself: names printed, standard input, what is refused."""
    environment = {**os.environ, **dict(context.environment)}

    def run(*words: str, data: bytes = b"") -> tuple[int, str, str]:
        result = subprocess.run(
            ["usercontainer", *words],
            input=data,
            capture_output=True,
            env=environment,
            check=False,
            timeout=60,
        )
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    layout = Layout()
    layout.add_image([SMALL_LAYER], "a/one:1")
    layout.add_image([OTHER_LAYER])
    archive = pack(layout.build())
    status, output, errors = run("load", "-q", data=gzip.compress(archive))
    nameless = next(image for image in list_images(context) if not image.names)
    assert (status, errors) == (0, "")
    assert output == f"Loaded image: localhost/a/one:1\nLoaded image: {nameless.id}\n"
    (tmp_path / "x.tar").write_bytes(archive)
    assert run("image", "load", "-q", "-i", f"{tmp_path}/x.tar")[:2] == (0, output)
    assert run("pull", "-q", f"oci-archive:{tmp_path}/x.tar:a/one:1")[0] == 0
    assert run("load", "-q", data=b"junk") == (
        125,
        "",
        "Error: standard input: this is not a tar archive, or not all of one\n",
    )
    assert run("load", "-i", "/nowhere")[0] == 125
    assert run("load", "name")[0] == 125


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(context: Context, tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of a pipe: nothing stays, whatever ends it."""
    layout = Layout()
    layout.add_image([build_tar(file("large", os.urandom(4_000_000)))], "a/one:1")
    archive = pack(layout.build())
    environment = {**os.environ, **dict(context.environment)}
    with subprocess.Popen(
        ["usercontainer", "load", "-q"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin is not None
        # More than the pipe takes: it reads, so the spool is there.
        process.stdin.write(archive[: len(archive) // 2])
        process.stdin.flush()
        process.send_signal(number)
        process.wait(60)
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert [name for name in snapshot(context) if "/layers/" in name or "/tmp/" in name] == []
    assert list_images(context) == []
