"""Between us, podman and skopeo by way of a registry, in both directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.interchange import ODD, Tools

REGISTRY = "localhost:5000/interchange"


def keep_blobs(tools: Tools) -> None:
    directory = tools.directory / "config" / "usercontainerd"
    directory.mkdir(parents=True)
    (directory / "usercontainerd.toml").write_text("[store]\nkeep_blobs = true\n")
    tools.environment["XDG_CONFIG_HOME"] = str(tools.directory / "config")


def digest_in_registry(tools: Tools, name: str) -> str:
    format_ = ["--format", "{{.Digest}}"]
    return tools.run("skopeo", "inspect", "--tls-verify=false", *format_, f"docker://{name}").strip()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_podman_pushes_we_pull_and_the_reverse(built: Tools, tools: Tools, compression: str) -> None:
    theirs, ours = f"{REGISTRY}/theirs:{compression}", f"{REGISTRY}/ours:{compression}"
    options = ["--tls-verify=false", "--compression-format", compression]
    built.run("podman", "push", "-q", *options, ODD, theirs)
    tools.ours("pull", "-q", "--tls-verify=false", theirs)
    id_ = built.podman_digests(ODD)[0]
    assert tools.our_digests(theirs) == (id_, digest_in_registry(tools, theirs))
    assert tools.our_tree(theirs) == built.odd_tree
    tools.ours("push", "-q", "--tls-verify=false", theirs, f"docker://{ours}")
    tools.run("podman", "pull", "-q", "--tls-verify=false", ours)
    assert tools.podman_digests(ours) == (id_, digest_in_registry(tools, ours))
    assert tools.podman_tree(ours) == built.odd_tree


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_kept_blobs_keep_the_digest_all_the_way(built: Tools, tools: Tools, compression: str) -> None:
    """A registry, us, an archive, skopeo, another repository: one manifest."""
    keep_blobs(tools)
    first, second = f"{REGISTRY}/kept-{compression}:1", f"{REGISTRY}/kept-{compression}-again:1"
    options = ["--tls-verify=false", "--compression-format", compression]
    built.run("podman", "push", "-q", *options, ODD, first)
    digest = digest_in_registry(tools, first)
    tools.ours("pull", "-q", "--tls-verify=false", first)
    archive = tools.directory / "x.tar"
    tools.ours("save", "-q", "--format", "oci-archive", "-o", str(archive), first)
    assert (
        tools.run("skopeo", "inspect", "--format", "{{.Digest}}", f"oci-archive:{archive}").strip() == digest
    )
    tools.copy(f"oci-archive:{archive}", f"docker://{second}", "--preserve-digests")
    assert digest_in_registry(tools, second) == digest
    tools.ours("push", "-q", "--tls-verify=false", first, f"docker://{REGISTRY}/kept-{compression}-pushed:1")
    assert digest_in_registry(tools, f"{REGISTRY}/kept-{compression}-pushed:1") == digest
    # And from the archive into an empty store of ours, which keeps the blobs, too.
    tools.forget_ours()
    tools.ours("load", "-q", "-i", str(archive))
    again = tools.directory / "again.tar"
    tools.ours("save", "-q", "--format", "oci-archive", "-o", str(again), first)
    assert again.read_bytes() == archive.read_bytes()


def test_an_archive_of_docker_s_goes_on_to_a_registry(built: Tools, tools: Tools) -> None:
    archive = str(tools.directory / "x.tar")
    built.run("podman", "save", "-q", "-o", archive, ODD)
    tools.ours("load", "-q", "-i", archive)
    name = f"{REGISTRY}/loaded:1"
    tools.ours("push", "-q", "--tls-verify=false", ODD, f"docker://{name}")
    tools.copy(f"docker://{name}", f"dir:{tools.directory}/dir")
    manifest = json.loads(Path(tools.directory, "dir", "manifest.json").read_text())
    assert manifest["config"]["digest"] == f"sha256:{built.podman_digests(ODD)[0]}"
    tools.run("podman", "pull", "-q", "--tls-verify=false", name)
    assert tools.podman_tree(name) == built.odd_tree
