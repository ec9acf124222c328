"""Pushing to real registries: what podman and skopeo then pull is what was pushed, to the digest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import run
from tests.support.fakeregistry import OCI_MANIFEST, Handler, digest_of, file
from tests.support.images import ImageMaker
from tests.support.realregistry import PASSWORD, USER, RealRegistry

HOME = "localhost:5000"
BUSYBOX = f"{HOME}/busybox:latest"


@pytest.fixture(scope="module", autouse=True)
def busybox() -> None:
    run("usercontainer", "pull", "-q", BUSYBOX)


@pytest.fixture
def image(images: ImageMaker) -> Iterator[str]:
    """An image of several layers of its own, pulled; its layers are in no real registry."""
    members = [file(f"data/{number}", os.urandom(200_000)) for number in range(5)]
    name = images.add("pushed", *members)
    run("usercontainer", "pull", "-q", name)
    yield name
    run("usercontainer", "rmi", "--force", name, check=False)


def inspect_remote(name: str, *options: str) -> dict[str, Any]:
    """What skopeo sees of an image in a registry; its manifest is checked by skopeo."""
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", *options, f"docker://{name}").stdout
    return dict(json.loads(raw))


def digest_of_remote(name: str, *options: str) -> str:
    command = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", *options]
    return run(*command, f"docker://{name}").stdout.strip()


def push(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("usercontainer", "push", *words, check=check)


def test_another_name_has_the_same_digest(tmp_path: Path) -> None:
    digestfile = tmp_path / "digest"
    result = push("--digestfile", str(digestfile), BUSYBOX, f"docker://{HOME}/busybox:again")
    assert result.stdout == ""
    digest = digest_of_remote(BUSYBOX)
    assert digestfile.read_text() == digest == digest_of_remote(f"{HOME}/busybox:again")
    assert "the registry has it" in result.stderr
    assert f"Pushed {HOME}/busybox:again with digest {digest}" in result.stderr


def test_another_repository_takes_layers_from_the_first() -> None:
    result = push(BUSYBOX, f"{HOME}/copies/busybox")
    assert "taken from another repository" in result.stderr
    assert digest_of_remote(f"{HOME}/copies/busybox") == digest_of_remote(BUSYBOX)
    assert push("-q", BUSYBOX, f"{HOME}/copies/busybox").stderr == ""


def test_layers_are_made_again_where_nobody_has_them(image: str) -> None:
    target = f"{HOME}/made/image:1"
    first = push(image, target)
    assert "being compressed" in first.stderr
    digest = digest_of_remote(target)
    # It is known what they became: the second push asks for that.
    second = push(image, f"{HOME}/made/image:2")
    assert "the registry has it" in second.stderr
    assert "being compressed" not in second.stderr
    assert digest_of_remote(f"{HOME}/made/image:2") == digest
    # Without that knowledge the same bytes are made again.
    shutil.rmtree(Path("~/.cache/usercontainerd/made-layers").expanduser())
    third = push(image, f"{HOME}/made/image:3")
    assert "being compressed" in third.stderr
    assert digest_of_remote(f"{HOME}/made/image:3") == digest
    run("podman", "pull", "-q", target)
    output = run("podman", "run", "--rm", "--network=none", target, "ls", "/data").stdout
    assert output.split() == ["0", "1", "2", "3", "4"]
    run("podman", "rmi", target)
    # It is the same image: by its configuration, and by all diffIDs.
    shown = json.loads(run("usercontainer", "inspect", image).stdout)[0]
    assert inspect_remote(target)["config"]["digest"].endswith(shown["Id"].removeprefix("sha256:"))
    run("usercontainer", "pull", "-q", target)


@pytest.mark.parametrize(
    ("options", "manifest_type", "layer_type"),
    [
        (["--format", "v2s2"], "application/vnd.docker.distribution.manifest.v2+json", "tar.gzip"),
        (["--compression-format", "zstd"], "application/vnd.oci.image.manifest.v1+json", "tar+zstd"),
        (["--compression-level", "1"], "application/vnd.oci.image.manifest.v1+json", "tar+gzip"),
        (["--format=oci", "--force-compression"], "application/vnd.oci.image.manifest.v1+json", "tar+gzip"),
    ],
)
def test_forms(options: list[str], manifest_type: str, layer_type: str) -> None:
    target = f"{HOME}/forms/busybox:{options[-1].strip('-')}"
    push(*options, BUSYBOX, target)
    manifest = inspect_remote(target)
    assert manifest["mediaType"] == manifest_type
    assert all(layer["mediaType"].endswith(layer_type) for layer in manifest["layers"])
    run("podman", "pull", "-q", target)
    assert run("podman", "run", "--rm", "--network=none", target, "echo", "well").stdout == "well\n"
    run("podman", "rmi", target)
    run("usercontainer", "pull", "-q", target)


def test_a_layer_that_cannot_be_made_again_goes_from_its_blob(images: ImageMaker, tmp_path: Path) -> None:
    """A large file twice: there is no recipe of such an archive, so its blob was kept."""
    name = images.add("twice", file("data", bytes(9 << 20)), file("data", b"second"), base=False)
    run("usercontainer", "pull", "-q", name)
    push(name, f"{HOME}/twice/image:gzip")
    push("--compression-format=zstd", name, f"{HOME}/twice/image:zstd")
    data, _ = images.registry.manifests["twice", "latest"]
    assert digest_of_remote(f"{HOME}/twice/image:gzip") == digest_of(data)
    # Podman unpacks no such layer; skopeo checks digests without that.
    run(
        "skopeo",
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"docker://{HOME}/twice/image:zstd",
        f"dir:{tmp_path}",
    )
    run("usercontainer", "rmi", name)
    run("usercontainer", "pull", "-q", f"{HOME}/twice/image:zstd")


def test_docker_images_stay_dockers() -> None:
    run("usercontainer", "pull", "-q", f"{HOME}/busybox:docker")
    push(f"{HOME}/busybox:docker", f"{HOME}/copies/docker")
    assert digest_of_remote(f"{HOME}/copies/docker") == digest_of_remote(f"{HOME}/busybox:docker")


def test_with_tls_and_a_password(secure_registry: RealRegistry, image: str) -> None:
    target = f"{secure_registry.host}/private/image"
    certificates = ["--cert-dir", str(secure_registry.certificates)]
    refused = push(*certificates, image, target, check=False)
    assert refused.returncode == 125
    assert "refuses access" in refused.stderr
    assert "login" in refused.stderr
    untrusted = push("--creds", f"{USER}:{PASSWORD}", image, target, check=False)
    assert "TLS failed" in untrusted.stderr
    wrong = push(*certificates, "--creds", f"{USER}:wrong", image, target, check=False)
    assert "refuses access" in wrong.stderr
    push(*certificates, "--creds", f"{USER}:{PASSWORD}", image, target)
    assert secure_registry.ask("/v2/private/image/tags/list", user=USER)[0] == 200
    run(
        "skopeo", "copy", "-q", "--src-cert-dir", str(secure_registry.certificates), "--src-creds",
        f"{USER}:{PASSWORD}", f"docker://{target}", "dir:/tmp/pushed",
    )  # fmt: skip
    run("usercontainer", "pull", "-q", *certificates, "--creds", f"{USER}:{PASSWORD}", target)


def test_kept_blobs_keep_the_digest_everywhere(secure_registry: RealRegistry, images: ImageMaker) -> None:
    """With ``keep_blobs`` what goes to a registry that has nothing of it is what was pulled, to the byte."""
    configuration = Path("~/.config/usercontainerd/usercontainerd.toml").expanduser()
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text("[store]\nkeep_blobs = true\n", encoding="utf-8")
    try:
        name = images.add("kept", file("data", os.urandom(100_000)), base=False)
        run("usercontainer", "pull", "-q", name)
    finally:
        configuration.unlink()
    access = ["--cert-dir", str(secure_registry.certificates), "--creds", f"{USER}:{PASSWORD}"]
    target = f"{secure_registry.host}/kept/image:1"
    result = push(*access, name, target)
    assert "being compressed" not in result.stderr
    data, _ = images.registry.manifests["kept", "latest"]
    assert f"with digest {digest_of(data)}" in result.stderr
    path = "/v2/kept/image/manifests/1"
    assert secure_registry.ask(path, user=USER, accept=OCI_MANIFEST)[2] == data
    run("usercontainer", "rmi", name)


def test_all_tags() -> None:
    for tag in ("a", "b"):
        run("usercontainer", "tag", BUSYBOX, f"{HOME}/many/tags:{tag}")
    push("--all-tags", f"{HOME}/many/tags")
    tags = run("skopeo", "list-tags", "--tls-verify=false", f"docker://{HOME}/many/tags").stdout
    assert sorted(json.loads(tags)["Tags"]) == ["a", "b"]


def test_an_index_goes_with_its_images() -> None:
    run("usercontainer", "manifest", "create", "localhost/both:1")
    run("usercontainer", "manifest", "add", "localhost/both:1", BUSYBOX)
    push("localhost/both:1", f"{HOME}/both/index:1")
    index = inspect_remote(f"{HOME}/both/index:1")
    assert [each["digest"] for each in index["manifests"]] == [digest_of_remote(BUSYBOX)]
    run("podman", "pull", "-q", f"{HOME}/both/index:1")
    run("podman", "rmi", f"{HOME}/both/index:1")
    run("usercontainer", "manifest", "rm", "localhost/both:1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "there is no image 'nothing' here"),
        ([BUSYBOX, "dir:/tmp/x"], "not to dir:"),
        ([BUSYBOX, f"{HOME}/UPPER"], "lower case"),
        (["--format", "v2s1", BUSYBOX], "withdrawn"),
        (["--format", "v2s2", "--compression-format", "zstd", BUSYBOX], "no layers compressed with zstd"),
        (["--compression-level", "77", BUSYBOX, f"{HOME}/level"], "no level 77"),
        (["--sign-by", "me", BUSYBOX], "skopeo or cosign"),
        ([BUSYBOX, "localhost:1/x"], "refused"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    result = push(*words, check=False)
    assert result.returncode == 125
    assert message in result.stderr


def test_an_id_needs_a_destination() -> None:
    number = run("usercontainer", "images", "-q", "busybox").stdout.split()[0]
    result = push(number, check=False)
    assert "does not say where to push to" in result.stderr
    push(number, f"{HOME}/by/id")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(images: ImageMaker, image: str, number: int, status: int) -> None:
    """It leaves at once, and the registry knows nothing of the name."""

    def stall(handler: Handler) -> None:
        handler.registry.stopped.wait(60)

    images.registry.uploads.rules["PUT"] = stall
    target = f"{images.host}/interrupted:1"
    command = ["usercontainer", "push", "--force-compression", image, target]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while "PUT" not in images.registry.methods:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == status
    assert ("interrupted", "1") not in images.registry.manifests
    staging = Path("~/.local/share/usercontainerd/tmp").expanduser()
    assert list(staging.iterdir()) == []
