"""``images``, beside podman's where it says what is right."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator

import pytest

from tests.native.test_image_verbs import cli, here, image_id, lines, nothing_here, out
from tests.support.containers import BUSYBOX, run
from tests.support.fakeregistry import OCI_INDEX, digest_of
from tests.support.images import ARCHITECTURES, ImageMaker

WEB = "localhost:5000/web:latest"
NAMES = ("--noheading", "--format", "{{.Repository}}:{{.Tag}}")
__all__ = ["here", "nothing_here"]


@pytest.fixture(autouse=True)
def podman_has_them() -> Iterator[None]:
    run("podman", "pull", "-q", "--tls-verify=false", WEB, BUSYBOX)
    yield
    run("podman", "rmi", "-a", "-f")


def names(*words: str) -> list[str]:
    return lines("images", *NAMES, *words)


def both(*words: str) -> None:
    """Here and with podman the same."""
    ours, theirs = lines("images", *words), run("podman", "images", *words).stdout.splitlines()
    assert sorted(ours) == sorted(theirs), words


def test_columns_and_headings() -> None:
    assert re.match(r"REPOSITORY +TAG +IMAGE ID +CREATED +SIZE$", lines("images")[0])
    shown = lines("image", "ls", "--digests", "--history", "--no-trunc")
    assert re.match(r"REPOSITORY +TAG +DIGEST +IMAGE ID +CREATED +SIZE +HISTORY$", shown[0])
    assert f"sha256:{image_id(WEB)}" in "\n".join(shown)
    assert len(lines("image", "list", "-n")) == 2
    assert (
        lines("images", "nosuch")
        == lines("images", "-f", "dangling=true")
        == ["REPOSITORY   TAG   IMAGE ID   CREATED   SIZE"]
    )
    both("-q")
    both("-q", "--no-trunc")


def test_fields_are_podmans() -> None:
    for field in (
        "ID", "Id", "Repository", "Tag", "Digest", "Created", "CreatedSince", "CreatedAt", "CreatedTime", "Names",
        "RepoTags", "RepoDigests", "History", "Labels", "Containers", "ReadOnly", "IsReadOnly", "Dangling",
        "IsDangling", "ParentId", "SharedSize",
    ):  # fmt: skip
        both("--format", f"{{{{.Repository}}}} {{{{.{field}}}}}")
    ours = {each["Id"]: each for each in json.loads(out("images", "--format", "json"))}
    theirs = {each["Id"]: each for each in json.loads(run("podman", "images", "--format", "json").stdout)}
    assert set(ours) == set(theirs)
    for identity, image in theirs.items():
        assert set(image) == set(ours[identity])
        for key in set(image) - {"Size", "VirtualSize", "RepoTags"}:  # podman has null for RepoTags
            assert ours[identity][key] == image[key], key
    assert "there is no field" in cli("images", "--format", "{{.Nope}}", status=125).stderr
    assert lines("images", "--format", "table {{.ID}}\t{{.ReadOnly}}")[0].split() == ["IMAGE", "ID", "R/O"]


def test_digests_of_an_index(images: ImageMaker) -> None:
    """Lists have the digest of the index, inspect that of the manifest."""
    images.add("multi", tag="one")
    data, media_type = images.registry.manifests["multi", "one"]
    entry = {
        "mediaType": media_type, "digest": digest_of(data), "size": len(data),
        "platform": {"os": "linux", "architecture": ARCHITECTURES.get(platform.machine(), platform.machine())},
    }  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    images.registry.add_manifest("multi", "latest", index, OCI_INDEX)
    name = f"{images.host}/multi:latest"
    cli("pull", "-q", name)
    run("podman", "pull", "-q", "--tls-verify=false", name)
    both("--format", "{{.Digest}}", name)
    for words, keys in (
        (["images", "--format", "json"], ("Digest",)),
        (["image", "inspect"], ("Digest", "RepoDigests")),
    ):
        (ours,) = json.loads(out(*words, name))
        (theirs,) = json.loads(run("podman", *words, name).stdout)
        assert ours["Digest"] == theirs["Digest"]
        # In any order: Podman's has changed.
        assert [sorted(ours[key]) for key in keys[1:]] == [sorted(theirs[key]) for key in keys[1:]]


def test_filters_are_podmans() -> None:
    for tool in (["podman"], ["usercontainer"]):
        run(*tool, "tag", BUSYBOX, "one", "two:2")
    for words in (
        "id=450a", "id!=450a", "label=org.opencontainers.image.title", "label=org.opencontainers.image.title=web",
        "label=org.opencontainers.image.title=x", "label!=org.opencontainers.image.title", "dangling=true",
        "dangling=false", "intermediate=false", "readonly=true", "readonly=false", "manifest=true", "until=1h",
        "until=2026-01-01T00:00:01Z", "until=1", "containers=true", "containers=false", f"before={WEB}", f"since={WEB}",
        f"after={BUSYBOX}", "reference=localhost:5000/w*", "reference!=web", "reference=nosuch",
    ):  # fmt: skip
        both(*NAMES, "-f", words)
    digest = out("images", "--noheading", "--format", "{{.Digest}}", "web")
    assert names("-f", f"digest={digest}") == names("-f", f"digest={digest[:20]}") == [WEB]
    # Of an image that was found by a name, that name is shown; podman 5.4 shows the others, too.
    assert names("one") == names("-f", "reference=one") == ["localhost/one:latest"]
    assert names("-f", "reference=one", "-f", "reference=t*", "-f", "label!=x") == names(
        "-f", "reference=one", "t*"
    )
    assert sorted(names(image_id(BUSYBOX)[:6])) == sorted(
        ["localhost/one:latest", "localhost/two:2", BUSYBOX]
    )
    assert names(f"localhost:5000/web@{digest}") == [WEB]
    cli("untag", BUSYBOX)
    assert names("-f", "dangling=true") == []
    assert names("-f", "intermediate=true") == ["<none>:<none>"]
    assert names() == [WEB] and len(names("-a")) == 2
    for word, message in (
        ("foo=bar", "there is no filter"), ("label", "write KIND=VALUE"), ("dangling=maybe", "neither true nor false"),
        ("since=nosuch", "no image 'nosuch'"), ("until=foo", "no time"), ("containers=foo", "neither true nor false"),
    ):  # fmt: skip
        assert message in cli("images", "-f", word, status=125).stderr


def test_order() -> None:
    cli("tag", BUSYBOX, "b", "a:2", "a:1")
    assert names("--sort", "repository") == [
        "localhost/a:1",
        "localhost/a:2",
        "localhost/b:latest",
        BUSYBOX,
        WEB,
    ]
    assert names("--sort", "tag")[:2] == ["localhost/a:1", "localhost/a:2"]
    assert names("--sort", "size")[-1] == WEB
    assert "possible are" in cli("images", "--sort", "foo", status=125).stderr


def test_names_that_moved_are_remembered() -> None:
    cli("tag", BUSYBOX, "moving")
    cli("tag", WEB, "moving")
    assert out("images", "-n", "--history", BUSYBOX).split()[-1] == "localhost/moving:latest"
    cli("untag", WEB)
    (image,) = json.loads(out("image", "inspect", image_id(BUSYBOX)))
    assert image["NamesHistory"] == [BUSYBOX, "localhost/moving:latest"]


def test_containers_are_counted() -> None:
    cli("create", "-q", "--name", "counted", BUSYBOX, "true")
    try:
        assert names("-f", "containers=true") == [BUSYBOX]
        assert out("images", "--format", "{{.Containers}}", BUSYBOX) == "1"
    finally:
        cli("rm", "counted")
