"""What podman, buildah and skopeo have made loads here, with the same digests."""

from __future__ import annotations

import json

import pytest

from tests.support.interchange import ODD, SECOND, Tools

BUSYBOX = "docker://localhost:5000/busybox"


@pytest.mark.parametrize(
    ("kind", "compress"),
    [
        ("docker-archive", False),
        ("oci-archive", False),
        ("oci-archive", True),
        ("oci-dir", True),
        ("docker-dir", True),
    ],
)
def test_podman_save(built: Tools, tools: Tools, kind: str, compress: bool) -> None:
    options = {"oci": [] if compress else ["--uncompressed"], "docker": ["--compress"] if compress else []}
    path = str(tools.directory / "saved")
    built.run("podman", "save", "-q", "--format", kind, *options[kind.partition("-")[0]], "-o", path, ODD)
    output = tools.ours("load", "-q", "-i", path)
    tools.run("podman", "load", "-q", "-i", path)
    id_, digest = built.podman_digests(ODD)
    named = kind != "docker-dir"
    assert output == f"Loaded image: {ODD if named else f'sha256:{id_}'}\n"
    # The very manifest that podman has after loading the same file.
    name = ODD if named else id_
    assert tools.our_digests(name) == tools.podman_digests(name if kind.endswith("archive") else id_)
    assert tools.our_digests(name)[0] == id_
    if kind == "oci-archive" and not compress:
        assert tools.our_digests(name)[1] == digest
    assert tools.our_tree(name) == built.odd_tree


@pytest.mark.parametrize(
    ("target", "compression"),
    [
        ("oci", "zstd"),
        ("oci", ""),
        ("oci-archive", "gzip"),
        ("oci-archive", "zstd:chunked"),
        ("dir", "gzip"),
        ("dir", ""),
    ],
)
def test_skopeo_copy(built: Tools, tools: Tools, target: str, compression: str) -> None:
    path = tools.directory / "copy"
    name = "" if target == "dir" else f":{ODD}"
    options = ["--dest-compress-format", compression] if compression else []
    if target == "dir":
        options += ["--dest-compress"] if compression else []
    elif not compression:
        options = ["--dest-oci-accept-uncompressed-layers"]
    built.copy(f"containers-storage:{ODD}", f"{target}:{path}{name}", *options)
    digest = tools.run("skopeo", "inspect", "--format", "{{.Digest}}", f"{target}:{path}{name}").strip()
    tools.ours("load", "-q", "-i", str(path))
    id_ = built.podman_digests(ODD)[0]
    assert tools.our_digests(id_ if target == "dir" else ODD) == (id_, digest)


def test_skopeo_docker_archive(built: Tools, tools: Tools) -> None:
    path = tools.directory / "copy.tar"
    built.copy(f"containers-storage:{ODD}", f"docker-archive:{path}:quay.io/a/b:c")
    digest = tools.run("skopeo", "inspect", "--format", "{{.Digest}}", f"docker-archive:{path}").strip()
    assert tools.ours("load", "-q", data=path.read_bytes()) == "Loaded image: quay.io/a/b:c\n"
    assert tools.our_digests("quay.io/a/b:c") == (built.podman_digests(ODD)[0], digest)


def test_buildah_push(built: Tools, tools: Tools) -> None:
    path = tools.directory / "layout"
    built.run("buildah", "push", "-q", ODD, f"oci:{path}:{ODD}")
    tools.ours("pull", "-q", f"oci:{path}:{ODD}")
    id_, digest = tools.our_digests(ODD)
    assert id_ == built.podman_digests(ODD)[0]
    assert digest == json.loads((path / "index.json").read_text())["manifests"][0]["digest"]
    assert tools.our_tree(ODD) == built.odd_tree


def test_several_images(built: Tools, tools: Tools) -> None:
    path = str(tools.directory / "several.tar")
    built.run("podman", "save", "-q", "-m", "-o", path, ODD, "localhost/odd:0", SECOND)
    loaded = set(tools.ours("load", "-q", "-i", path).splitlines())
    names = {ODD, "localhost/odd:0", SECOND}
    assert loaded == {f"Loaded image: {name}" for name in names}
    for name in names:
        assert tools.our_digests(name)[0] == built.podman_digests(name)[0]
    tools.ours("pull", "-q", f"docker-archive:{path}:localhost/odd:0")


def test_multi_platform(tools: Tools) -> None:
    layout = tools.directory / "all"
    tools.copy("docker://localhost:5000/multi", f"oci:{layout}:localhost/multi:1", "--all")
    tools.copy("docker://localhost:5000/multi", f"dir:{tools.directory}/dir", "--all")
    tools.run("podman", "load", "-q", "-i", str(layout))
    (id_,) = tools.run("podman", "images", "-q", "--no-trunc").split()
    assert tools.ours("load", "-q", "-i", str(layout)) == "Loaded image: localhost/multi:1\n"
    assert tools.our_digests("localhost/multi:1")[0] == id_.removeprefix("sha256:")
    assert tools.ours("load", "-q", "-i", f"{tools.directory}/dir") == f"Loaded image: {id_}\n"
