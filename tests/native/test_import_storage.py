"""Taking over images of podman's own store, which stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.interchange import ODD, Tools
from usercontainerd.engine.images.local import get_image, open_images


def state(tools: Tools) -> dict[str, tuple[int, int, int]]:
    """Everything in podman's store with times and sizes, but for its database and what it locks with."""
    script = "find containers/storage -printf '%p %T@ %s %i\\n' 2>/dev/null; true"
    lines = tools.run("podman", "unshare", "sh", "-c", f"cd {tools.directory}/data && {script}").splitlines()
    return {
        path: (int(float(time)), int(size), int(inode))
        for path, time, size, inode in (line.rsplit(" ", 3) for line in lines)
        if not path.endswith((".lock", "db.sql", "/storage", "/libpod", "/networks"))
    }


def take(tools: Tools, *words: str, check: bool = True) -> tuple[int, str, str]:
    result = subprocess.run(
        ["usercontainer", "image", "import-storage", "-q", *words],
        capture_output=True,
        text=True,
        env=tools.environment,
        check=False,
        timeout=120,
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result.returncode, result.stdout, result.stderr


def graphroot(tools: Tools) -> str:
    return f"{tools.directory}/data/containers/storage"


def test_all(built: Tools, tools: Tools) -> None:
    before = state(built)
    _, output, _ = take(tools, "--root", graphroot(built))
    assert state(built) == before
    listed = json.loads(built.run("podman", "images", "-a", "--format", "json"))
    assert len(output.splitlines()) == len({image["Id"] for image in listed})
    for image in listed:
        for name in image.get("Names") or ():
            assert tools.our_digests(name) == (image["Id"], image["Digest"])
    assert tools.our_tree(ODD) == built.odd_tree
    # Again: nothing to do. And the image can go on its way.
    assert take(tools, "--root", graphroot(built))[1] == output
    path = str(tools.directory / "x.tar")
    tools.ours("save", "-q", "-o", path, ODD)
    tools.run("podman", "load", "-q", "-i", path)
    assert tools.podman_digests(ODD)[0] == built.podman_digests(ODD)[0]


def test_from_a_registry(tools: Tools) -> None:
    """Digests of manifest and index, and in which form layers came."""
    for name in ("busybox", "multi"):
        tools.run("podman", "pull", "-q", "--tls-verify=false", f"localhost:5000/{name}")
    take(tools, "localhost:5000/busybox", "multi")
    context = tools.context
    for name in ("busybox", "multi"):
        id_, digest = tools.podman_digests(f"localhost:5000/{name}")
        record = get_image(context, f"localhost:5000/{name}")
        assert record.id.hex == id_
        assert record.names[0].digests[-1] == digest
        known = json.loads(tools.run("podman", "image", "inspect", f"localhost:5000/{name}"))[0][
            "RepoDigests"
        ]
        assert {each.partition("@")[2] for each in known} == set(record.names[0].digests)
    assert len(record.names[0].digests) == 2
    images = open_images(context)
    layer = images.layers.read(record.layers[0])
    assert layer is not None
    manifest = json.loads(images.blobs.read(record.manifest))
    assert manifest["layers"][0]["digest"] in [blob.digest for blob in layer.blobs]
    assert record.layers[0] in [blob.digest for blob in layer.blobs]


def test_driver_vfs(built: Tools, tools: Tools) -> None:
    path = str(tools.directory / "odd.tar")
    root = f"{tools.directory}/data/containers/vfs"
    podman = ("podman", "--root", root, "--runroot", f"{tools.directory}/run", "--storage-driver", "vfs")
    built.run("podman", "save", "-q", "-o", path, ODD)
    tools.run(*podman, "load", "-q", "-i", path)
    take(tools, "--root", root, ODD)
    assert tools.our_tree(ODD) == built.odd_tree


def test_damaged(tools: Tools) -> None:
    """An image whose layer was changed is left out, the others come."""
    tools.run("podman", "pull", "-q", "--tls-verify=false", "localhost:5000/busybox")
    base = tools.run("buildah", "from", "localhost:5000/busybox").strip()
    tools.run("buildah", "unshare", "sh", "-c", f"echo 1 > $(buildah mount {base})/file")
    tools.run("buildah", "commit", "-q", "--rm", base, "localhost/changed:1")
    (layer,) = [
        path for path in Path(graphroot(tools), "overlay").glob("*/diff/file") if path.read_text() == "1\n"
    ]
    layer.write_text("2\n")
    status, output, errors = take(tools, check=False)
    assert status == 125
    assert output == "Imported image: localhost:5000/busybox:latest\n"
    assert "localhost/changed:1 is left out" in errors
    assert "not the promised one" in errors
    assert tools.our_digests("localhost:5000/busybox:latest")
    # Shorter than it was, and not there at all.
    layer.parent.chmod(0o755)
    for damage in (lambda: layer.write_text(""), layer.unlink):
        damage()
        status, _, errors = take(tools, "localhost/changed:1", check=False)
        assert status == 125
        assert "was changed on disk: 'file'" in errors
    assert os.listdir(f"{tools.context.paths.data}/tmp") == []


def test_nothing_there(tools: Tools) -> None:
    status, _, errors = take(tools, check=False)
    assert (status, "no images of Podman's here" in errors) == (125, True)
    tools.run("podman", "pull", "-q", "--tls-verify=false", "localhost:5000/busybox")
    status, _, errors = take(tools, "nope", check=False)
    assert (status, "has no image 'nope'" in errors) == (125, True)


@pytest.mark.parametrize("key", ["graphroot", "rootless_storage_path"])
def test_storage_conf(tools: Tools, key: str) -> None:
    configuration = tools.directory / "config" / "containers"
    configuration.mkdir(parents=True)
    (configuration / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\n{key} = "{tools.directory}/data/containers/elsewhere"\n'
    )
    tools.environment["XDG_CONFIG_HOME"] = str(tools.directory / "config")
    tools.run("podman", "pull", "-q", "--tls-verify=false", "localhost:5000/busybox")
    assert Path(tools.directory, "data/containers/elsewhere/overlay-images/images.json").exists()
    assert take(tools)[1] == "Imported image: localhost:5000/busybox:latest\n"
    tools.run(
        "podman", "unshare", "umount", f"{tools.directory}/data/containers/elsewhere/overlay", check=False
    )
