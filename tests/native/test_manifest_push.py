"""``usercontainer manifest push``: to the machine's registry and to one with TLS and passwords; Podman reads it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import Place
from tests.support.realregistry import PASSWORD, USER, RealRegistry

BUSYBOX = "localhost:5000/busybox:latest"
DOCKER = "localhost:5000/busybox:docker"
MULTI = "localhost:5000/multi:latest"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def read_raw(name: str, *options: str) -> bytes:
    command = ["skopeo", "inspect", "--raw", *(options or ["--tls-verify=false"]), f"docker://{name}"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def target() -> str:
    return f"localhost:5000/pushed-{os.urandom(4).hex()}:1"


def make_list(place: Place) -> None:
    """One image that is here, several that are only in the registry, one of them in Docker's form."""
    place.run("pull", "-q", BUSYBOX)
    place.run("manifest", "create", "mine", BUSYBOX)
    place.run("manifest", "add", "--all", "mine", f"docker://{MULTI}")
    place.run(
        "manifest", "add", "--annotation", "form=docker", "--variant", "v2", "mine", f"docker://{DOCKER}"
    )


def test_same_registry(store_place: Place, target: str, tmp_path: Path) -> None:
    make_list(store_place)
    (record,) = [path.read_text() for path in (store_place.root / "indexes").iterdir()]
    digest_file = tmp_path / "digest"
    pushed = store_place.run(
        "manifest", "push", "--digestfile", str(digest_file), "mine", f"docker://{target}"
    )
    raw = read_raw(target)
    assert digest_file.read_text() == digest_of(raw)
    assert pushed.stderr.endswith(f"Pushed {target} with digest {digest_of(raw)}\n")
    document = json.loads(raw)
    # Nothing was made anew: every image has the digest that it had.
    expected = json.loads(record)["index"]
    assert document == expected
    assert document == json.loads(store_place.run("manifest", "inspect", "mine").stdout)
    # Podman pushes the very same bytes for the same images.
    theirs = target.replace(":1", ":2")
    push = ["podman", "manifest", "push", "-q", "--tls-verify=false"]
    subprocess.run([*push, make_podman_list(), theirs], check=True)
    assert read_raw(theirs) == raw
    # Others choose from it, and so do we.
    for platform in ("linux/amd64", "linux/arm64"):
        command = ["podman", "pull", "-q", "--tls-verify=false", "--platform", platform, target]
        pulled = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        ours = store_place.run("pull", "-q", "--platform", platform, target).stdout.strip()
        assert ours.removeprefix("sha256:") == pulled
    # Pushing again sends the same.
    store_place.run("manifest", "push", "-q", "--rm", "mine", target)
    assert read_raw(target) == raw
    assert store_place.run("manifest", "exists", "mine", check=False).returncode == 1


def test_what_refers_to_an_image_is_listed(store_place: Place, target: str) -> None:
    """Debian's registry has no list of its own (referrers, distribution specification 1.1): the tag has it."""
    repository = target.rpartition(":")[0]
    store_place.run("pull", "-q", BUSYBOX)
    store_place.run("push", "-q", BUSYBOX, target)
    subject = digest_of(read_raw(target))
    pushed = []
    for number in (1, 2):
        name = f"about-{number}"
        store_place.run("manifest", "create", name)
        store_place.run(
            *("manifest", "annotate", "--index", "--annotation", f"number={number}"),
            *("--subject", f"docker://{target}", name),
        )
        store_place.run("manifest", "push", "-q", name, f"{repository}:about-{number}")
        pushed.append(digest_of(read_raw(f"{repository}:about-{number}")))
    entries = json.loads(read_raw(f"{repository}:{subject.replace(':', '-')}"))["manifests"]
    assert [each["digest"] for each in entries] == pushed
    assert [each["annotations"] for each in entries] == [{"number": "1"}, {"number": "2"}]


def make_podman_list() -> str:
    name = f"localhost/list-{os.urandom(4).hex()}"
    for words in (
        ("create", name),
        ("add", "--tls-verify=false", name, f"docker://{BUSYBOX}"),
        ("add", "--tls-verify=false", "--all", name, f"docker://{MULTI}"),
        (
            "add",
            "--tls-verify=false",
            "--annotation",
            "form=docker",
            "--variant",
            "v2",
            name,
            f"docker://{DOCKER}",
        ),
    ):
        subprocess.run(["podman", "manifest", *words], check=True, stdout=subprocess.DEVNULL)
    return name


def test_other_registry(store_place: Place, secure_registry: RealRegistry) -> None:
    """Blobs are copied from one to the other; the layer of the image that is here is made again from its files."""
    make_list(store_place)
    name = f"{secure_registry.host}/copied:1"
    access = ["--cert-dir", str(secure_registry.certificates), "--creds", f"{USER}:{PASSWORD}"]
    before = json.loads(store_place.run("manifest", "inspect", "mine").stdout)
    store_place.run("manifest", "push", "-q", *access, "mine", name)
    document = json.loads(read_raw(name, *access))
    ours, *others = document["manifests"]
    assert others == before["manifests"][1:]
    assert ours["platform"] == before["manifests"][0]["platform"]
    for entry in document["manifests"]:
        raw = read_raw(f"{secure_registry.host}/copied@{entry['digest']}", *access)
        assert (digest_of(raw), len(raw)) == (entry["digest"], entry["size"])
    for platform in ("linux/amd64", "linux/arm64"):
        subprocess.run(["podman", "pull", "-q", *access, "--platform", platform, name], check=True)
        subprocess.run(["podman", "rmi", "-f", name], check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(store_place.root / "tmp") == []
    assert store_place.findings("--max", "0", "--quick", expected=0) == []


def test_docker_format(store_place: Place, target: str) -> None:
    make_list(store_place)
    store_place.run("manifest", "push", "-q", "--format", "v2s2", "mine", target)
    document: dict[str, Any] = json.loads(read_raw(target))
    assert document["mediaType"] == DOCKER_LIST
    assert {entry["mediaType"] for entry in document["manifests"]} == {DOCKER_MANIFEST}
    subprocess.run(
        ["podman", "pull", "-q", "--tls-verify=false", "--platform", "linux/arm64", target], check=True
    )
    store_place.run("pull", "-q", "--platform", "linux/amd64", target)


def test_what_cannot_be_pushed(store_place: Place, target: str) -> None:
    run = store_place.run
    archive = store_place.root.parent / "own.tar"
    run("pull", "-q", BUSYBOX)
    run("save", "-q", "-o", str(archive), BUSYBOX)
    run("rmi", BUSYBOX)
    image = run("load", "-q", "-i", str(archive)).stdout.split()[-1]
    run("tag", image, "localhost/own")
    run("untag", image, BUSYBOX)
    run("manifest", "create", "mine", "localhost/own")
    run("rmi", "-f", "localhost/own")
    gone = run("manifest", "push", "-q", "mine", target, check=False)
    assert gone.returncode == 125
    assert "is not here any more" in gone.stderr
    alone = run("manifest", "push", "-q", "--all=false", "mine", target, check=False)
    assert alone.returncode == 125
    assert "localhost:5000" in alone.stderr
    nowhere = run("manifest", "push", "-q", "nolist", target, check=False)
    assert "there is no index" in nowhere.stderr
    sideways = run("manifest", "push", "mine", f"oci:{archive}", check=False)
    assert "a push goes to a registry" in sideways.stderr
