"""Which images are in a file, what they are called, and what a pull gets from them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import (
    SMALL_LAYER,
    Files,
    Layout,
    build_configuration,
    build_docker_archive,
    pack,
    spread,
)
from tests.support.fakeregistry import OCI_INDEX, OCI_MANIFEST, digest_of
from usercontainerd.base.errors import DigestMismatch, InvalidFormat, NoSuchImage
from usercontainerd.engine.archives.loading import (
    ArchivedImage,
    choose_archived,
    list_archive,
    name_layout_image,
    split_transport,
)
from usercontainerd.engine.archives.members import DirectoryMembers, TarMembers
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor, Manifest, parse_manifest

LARGE = os.urandom(100_000)


def open_files(tmp_path: Path, files: Files) -> TarMembers:
    path = tmp_path / "archive.tar"
    path.write_bytes(pack(files))
    return TarMembers(os.open(path, os.O_RDONLY), str(path))


def open_directory(tmp_path: Path, files: Files) -> DirectoryMembers:
    return DirectoryMembers(str(spread(files, tmp_path / "directory")))


def names_of(images: list[ArchivedImage]) -> list[list[str]]:
    return [[str(name) for name in image.names] for image in images]


def fetch(image: ArchivedImage) -> Manifest:
    fetched = image.source.fetch_manifest("latest")
    assert digest_of(fetched.data) == fetched.digest
    document = parse_manifest(fetched.data, fetched.media_type)
    assert isinstance(document, Manifest)
    return document


def read_blob(image: ArchivedImage, blob: Descriptor) -> bytes:
    data: list[bytes] = []
    image.source.copy_blob(blob, data.append)
    return b"".join(data)


def test_layout(tmp_path: Path) -> None:
    layout = Layout()
    layout.add_image([LARGE], "quay.io/team/app:1")
    members = open_files(tmp_path, layout.build())
    (image,) = list_archive(members)
    assert image.transport == "oci-archive"
    assert names_of([image]) == [["quay.io/team/app:1"]]
    manifest = fetch(image)
    assert read_blob(image, manifest.layers[0]) == gzip.compress(LARGE, 1, mtime=0)
    assert image.source.fetch_blob(manifest.config, limit=10_000) == build_configuration([LARGE])
    with pytest.raises(InvalidFormat, match="more than the 10 allowed"):
        image.source.fetch_blob(manifest.config, limit=10)


@pytest.mark.parametrize(
    ("annotations", "in_archive", "in_directory"),
    [
        ({}, [], []),
        ({"org.opencontainers.image.ref.name": "latest"}, ["localhost/latest:latest"], []),
        ({"org.opencontainers.image.ref.name": "a/b:2"}, ["localhost/a/b:2"], ["localhost/a/b:2"]),
        (
            {
                "org.opencontainers.image.ref.name": "2",
                "io.containerd.image.name": "docker.io/library/x:2",
            },
            ["docker.io/library/x:2"],
            ["docker.io/library/x:2"],
        ),
        ({"org.opencontainers.image.ref.name": "Not A Name/!"}, [], []),
    ],
)
def test_layout_names(
    tmp_path: Path, annotations: dict[str, str], in_archive: list[str], in_directory: list[str]
) -> None:
    layout = Layout()
    layout.add_image([SMALL_LAYER])["annotations"] = annotations
    assert names_of(list_archive(open_files(tmp_path, layout.build()))) == [in_archive]
    assert names_of(list_archive(open_directory(tmp_path, layout.build()))) == [in_directory]


def test_several_in_a_layout(tmp_path: Path) -> None:
    layout = Layout()
    first = layout.add_image([SMALL_LAYER], "a/one:1")
    layout.entries.append({**first, "annotations": {"org.opencontainers.image.ref.name": "a/two:2"}})
    layout.add_image([LARGE], "a/three:3")
    layout.entries.append({**first, "mediaType": "application/vnd.example", "digest": digest_of(b"x")})
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    layout.entries.append({**first, "digest": digest_of(b"y"), "annotations": note})
    members = open_files(tmp_path, layout.build())
    images = list_archive(members)
    assert names_of(images) == [["localhost/a/one:1", "localhost/a/two:2"], ["localhost/a/three:3"]]
    (chosen,) = choose_archived(members, "oci-archive", "a/two:2")
    assert fetch(chosen) == fetch(images[0])
    assert names_of([chosen]) == [["localhost/a/two:2"]]
    with pytest.raises(NoSuchImage, match=r"2 images; which one\?.*a/three:3"):
        choose_archived(members, "oci-archive", "")
    with pytest.raises(NoSuchImage, match=r"no image 'nope'.*a/one:1"):
        choose_archived(members, "oci-archive", "nope")


def test_platforms_without_names_are_one_image(tmp_path: Path) -> None:
    layout = Layout()
    for architecture in ("amd64", "arm64"):
        entry = layout.add_image([SMALL_LAYER], architecture=architecture)
        entry["platform"] = {"os": "linux", "architecture": architecture}
    (image,) = list_archive(open_files(tmp_path, layout.build()))
    assert image.source.fetch_manifest("latest").media_type == OCI_INDEX


def test_nested_index(tmp_path: Path) -> None:
    layout = Layout()
    inner = layout.add_document(layout.build_image([SMALL_LAYER]), OCI_MANIFEST)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}
    layout.entries.append(layout.add_document(index, OCI_INDEX, name="a/b:1"))
    (image,) = list_archive(open_files(tmp_path, layout.build()))
    assert image.source.fetch_manifest("latest").media_type == OCI_INDEX
    assert image.source.fetch_manifest(inner["digest"]).digest == inner["digest"]


def replace(files: Files, name: str, change: Any) -> Files:
    document = json.loads(files[name])
    change(document)
    return {**files, name: json.dumps(document).encode()}


def test_docker_archive(tmp_path: Path) -> None:
    files = build_docker_archive([SMALL_LAYER, LARGE], ["busybox:1", "quay.io/a/b"])
    members = open_files(tmp_path, files)
    (image,) = list_archive(members)
    assert names_of([image]) == [["docker.io/library/busybox:1", "quay.io/a/b:latest"]]
    manifest = fetch(image)
    assert [layer.digest for layer in manifest.layers] == [digest_of(SMALL_LAYER), digest_of(LARGE)]
    assert read_blob(image, manifest.layers[1]) == LARGE
    assert image.source.fetch_blob(manifest.config, limit=10_000) == build_configuration([SMALL_LAYER, LARGE])
    assert names_of(choose_archived(members, "docker-archive", "busybox:1")) == [
        ["docker.io/library/busybox:1"]
    ]
    assert len(choose_archived(members, "docker-archive", "@0")[0].names) == 2
    for wanted in ("@1", "@x", "nope:1"):
        with pytest.raises(NoSuchImage):
            choose_archived(members, "docker-archive", wanted)


def test_what_docker_writes_since_25(tmp_path: Path) -> None:
    """An OCI layout and manifest.json in one archive; two names of one image, and another image."""
    layout = Layout()
    plain = "application/vnd.oci.image.layer.v1.tar"
    first = layout.add_image([SMALL_LAYER], compress=bytes, media_type=plain)
    layout.entries.append(dict(first))
    second = layout.add_image([LARGE], compress=bytes, media_type=plain)
    for entry, name in zip(layout.entries, ("busybox:1", "busybox:latest", "team/app:2"), strict=True):
        entry["annotations"] = {
            "io.containerd.image.name": f"docker.io/{name if '/' in name else f'library/{name}'}",
            "org.opencontainers.image.ref.name": name.partition(":")[2],
        }
    blobs = [f"blobs/sha256/{digest_of(data)[7:]}" for data in (SMALL_LAYER, LARGE)]
    configs = [f"blobs/sha256/{digest_of(build_configuration([data]))[7:]}" for data in (SMALL_LAYER, LARGE)]
    manifest = [
        {"Config": configs[0], "RepoTags": ["busybox:1", "busybox:latest"], "Layers": [blobs[0]]},
        {"Config": configs[1], "RepoTags": ["team/app:2"], "Layers": [blobs[1]]},
    ]
    files = {**layout.build(), "manifest.json": json.dumps(manifest).encode()}
    members = open_files(tmp_path, files)
    images = list_archive(members)
    names = [
        ["docker.io/library/busybox:1", "docker.io/library/busybox:latest"],
        ["docker.io/team/app:2"],
    ]
    assert names_of(images) == names
    assert [image.source.fetch_manifest("latest").digest for image in images] == [
        first["digest"],
        second["digest"],
    ]
    # Asked for by its other face it holds the same.
    assert names_of(choose_archived(members, "docker-archive", "")) == names
    assert fetch(choose_archived(members, "docker-archive", "team/app:2")[0]).layers[0].digest == digest_of(
        LARGE
    )


def test_made_up_manifest_is_that_of_others(tmp_path: Path) -> None:
    """The very bytes that podman 5.4 and skopeo 1.18 make up for a docker archive of one layer."""
    (image,) = list_archive(open_files(tmp_path, build_docker_archive([b"x" * 2181120])))
    size, config = 2181120, digest_of(build_configuration([b"x" * 2181120]))
    assert image.source.fetch_manifest("").data.decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":'
        '{"mediaType":"application/vnd.docker.container.image.v1+json","size":'
        f'{len(build_configuration([b"x" * 2181120]))},"digest":"{config}"}},"layers":['
        f'{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{size},'
        f'"digest":"{digest_of(b"x" * 2181120)}"}}]}}'
    )


def test_compressed_layers_in_a_docker_archive(tmp_path: Path) -> None:
    files = build_docker_archive([LARGE])
    name = next(name for name in files if name.endswith("layer.tar"))
    (image,) = list_archive(open_files(tmp_path, {**files, name: gzip.compress(LARGE)}))
    (layer,) = fetch(image).layers
    assert layer.size == len(LARGE)
    assert read_blob(image, layer) == LARGE


def test_wrong_layer_in_a_docker_archive(tmp_path: Path) -> None:
    files = build_docker_archive([LARGE])
    name = next(name for name in files if name.endswith("layer.tar"))
    (image,) = list_archive(open_files(tmp_path, {**files, name: LARGE[::-1]}))
    with pytest.raises(DigestMismatch, match=digest_of(LARGE)):
        read_blob(image, fetch(image).layers[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[0].update(Layers=["../../etc/passwd"]), "not in the archive"),
        (lambda d: d[0].update(Layers=["/etc/passwd"]), "not in the archive"),
        (lambda d: d[0].update(Layers=[]), "lists 0 layers, the configuration 1"),
        (lambda d: d[0].update(Layers=["x"] * 501), "501 elements"),
        (lambda d: d[0].update(Config="/proc/self/environ"), "not in the archive"),
        (lambda d: d[0].update(Config=7), "expected a string"),
        (lambda d: d[0].update(RepoTags={"a": 1}), "expected an array"),
        (lambda d: d[0].update(RepoTags=["x"] * 10_001), "10001 elements"),
    ],
)
def test_hostile_docker_manifest(tmp_path: Path, change: Any, message: str) -> None:
    files = replace(build_docker_archive([SMALL_LAYER]), "manifest.json", change)
    with pytest.raises(InvalidFormat, match=message):
        fetch(list_archive(open_files(tmp_path, files))[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("index.json", b"{", "not valid JSON"),
        ("index.json", b'{"schemaVersion": 2, "manifests": [], "manifests": []}', "occurs twice"),
        ("index.json", b'{"schemaVersion": 2, "layers": [], "config": {}}', "does not belong"),
        ("index.json", b" " * (4 << 20) + b"{}", "more than the 4194304 allowed"),
        ("index.json", b'{"schemaVersion": 2, "manifests": []}', "no image in it"),
        ("index.json", b"[" * 100_000, "nested|not valid"),
        ("oci-layout", b'{"imageLayoutVersion": "2.0"}', "version '2.0'"),
        (
            "index.json",
            b'{"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",'
            b' "digest": "sha256:../../../../etc/passwd", "size": 1}]}',
            "not a digest",
        ),
    ],
)
def test_hostile_layout(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    layout = Layout()
    layout.add_image([SMALL_LAYER], "a/b:1")
    with pytest.raises((InvalidFormat, NoSuchImage), match=message):
        list_archive(open_files(tmp_path, {**layout.build(), name: content}))


def test_changed_manifest(tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.add_image([SMALL_LAYER], "a/b:1")
    files = layout.build()
    files[f"blobs/sha256/{entry['digest'][7:]}"] += b" "
    (image,) = list_archive(open_files(tmp_path, files))
    with pytest.raises(DigestMismatch, match=entry["digest"]):
        image.source.fetch_manifest("latest")


def test_dir(tmp_path: Path) -> None:
    layout = Layout()
    manifest = layout.build_image([SMALL_LAYER])
    data = json.dumps(manifest).encode()
    files = {name.rpartition("/")[2]: blob for name, blob in layout.files.items() if "/" in name}
    files |= {"manifest.json": data, f"{digest_of(data)[7:]}.manifest.json": data, "version": b"1.1"}
    for members in (open_directory(tmp_path, files), open_files(tmp_path, files)):
        (image,) = list_archive(members)
        assert (image.transport, image.names) == ("dir", ())
        assert read_blob(image, fetch(image).layers[0]) == gzip.compress(SMALL_LAYER, 1, mtime=0)
        assert image.source.fetch_manifest(digest_of(data)).data == data
        with pytest.raises(InvalidFormat):
            image.source.fetch_manifest(Digest(digest_of(b"other")))


def test_neither(tmp_path: Path) -> None:
    with pytest.raises(InvalidFormat, match="holds no images"):
        list_archive(open_files(tmp_path, {"etc/passwd": b"x"}))


def test_transports() -> None:
    assert split_transport("oci-archive:/a:b") == ("oci-archive", "/a:b")
    assert split_transport("dir:x") == ("dir", "x")
    assert split_transport("docker.io/library/dir:x") is None
    assert split_transport("dir") is None
    assert [str(name) for name in name_layout_image("oci-archive", ("v1",))] == ["localhost/v1:latest"]
