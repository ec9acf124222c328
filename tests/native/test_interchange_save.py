"""What is saved here loads in podman, skopeo and buildah; an image that goes there and back is the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.interchange import ODD, Tools

KINDS = ["docker-archive", "oci-archive", "oci-dir", "docker-dir"]


@pytest.fixture
def loaded(built: Tools, tools: Tools) -> Tools:
    """Our store has ``ODD``, from an OCI archive as podman saves it."""
    path = str(tools.directory / "odd.tar")
    built.run("podman", "save", "-q", "--format", "oci-archive", "-o", path, ODD)
    tools.ours("load", "-q", "-i", path)
    return tools


@pytest.mark.parametrize(
    ("kind", "compress"),
    [("docker-archive", False), ("oci-archive", True), ("oci-dir", False), ("docker-dir", True)],
)
def test_there_and_back(built: Tools, loaded: Tools, kind: str, compress: bool) -> None:
    """Us, podman, us: equal IDs and trees at each step."""
    options = {"oci": [] if compress else ["--uncompressed"], "docker": ["--compress"] if compress else []}
    extra = options[kind.partition("-")[0]]
    ours, theirs = (str(loaded.directory / name) for name in ("ours", "theirs"))
    id_ = built.podman_digests(ODD)[0]
    loaded.ours("save", "-q", "--format", kind, *extra, "-o", ours, ODD)
    loaded.run("podman", "load", "-q", "-i", ours)
    name = ODD if kind.endswith("archive") else id_
    assert loaded.podman_digests(name)[0] == id_
    assert loaded.podman_tree(name) == built.odd_tree
    loaded.run("podman", "save", "-q", "--format", "docker-archive", "-o", theirs, name)
    loaded.forget_ours()
    loaded.ours("load", "-q", "-i", theirs)
    assert loaded.our_digests(name)[0] == id_
    assert loaded.our_tree(name) == built.odd_tree


@pytest.mark.parametrize("kind", KINDS)
def test_equal_bytes(loaded: Tools, kind: str) -> None:
    paths = [loaded.directory / name for name in ("first", "second")]
    for path in paths:
        loaded.ours("save", "-q", "--format", kind, "-o", str(path), ODD)
    contents = [
        {
            str(each.relative_to(path)): each.read_bytes()
            for each in ([path] if path.is_file() else path.rglob("*"))
            if each.is_file()
        }
        for path in paths
    ]
    assert contents[0] == contents[1]
    if kind.endswith("archive"):
        piped = subprocess.run(
            ["usercontainer", "save", "-q", "--format", kind, ODD],
            capture_output=True,
            env=loaded.environment,
            check=True,
            timeout=60,
        )
        assert piped.stdout == paths[0].read_bytes()


def test_skopeo_and_buildah(loaded: Tools) -> None:
    id_ = loaded.our_digests(ODD)[0]
    transports = {
        "docker-archive": "docker-archive",
        "oci-archive": "oci-archive",
        "oci-dir": "oci",
        "docker-dir": "dir",
    }
    for kind, transport in transports.items():
        path = str(loaded.directory / kind)
        loaded.ours("save", "-q", "--format", kind, "-o", path, ODD)
        source = f"{transport}:{path}"
        config = json.loads(loaded.run("skopeo", "inspect", "--raw", source))["config"]
        assert config["digest"] == f"sha256:{id_}"
        loaded.copy(source, f"dir:{loaded.directory}/copy-{kind}")
        container = loaded.run("buildah", "from", source).strip()
        assert id_ in loaded.run("buildah", "inspect", "--format", "{{.FromImageID}}", container)
        loaded.run("buildah", "rm", container)


def test_nothing_recompressed_nothing_changed(built: Tools, tools: Tools) -> None:
    """Layers that came uncompressed leave so, and the manifest is the original one."""
    source, target = tools.directory / "source", tools.directory / "target"
    accept = "--dest-oci-accept-uncompressed-layers"
    built.copy(f"containers-storage:{ODD}", f"oci:{source}:{ODD}", accept)
    tools.ours("load", "-q", "-i", str(source))
    tools.ours("save", "-q", "--format", "oci-dir", "-o", str(target), ODD)
    before, after = find_files(source), find_files(target)
    # Older versions of Skopeo leave the index's own type out.
    entries = [json.loads(files.pop("index.json"))["manifests"] for files in (before, after)]
    assert entries[0] == entries[1]
    assert before == after


def find_files(directory: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    files.pop("oci-layout")  # its spelling is nobody's business
    return {name: path.read_bytes() for name, path in files.items()}


def test_several_and_names(built: Tools, loaded: Tools) -> None:
    path = str(loaded.directory / "first.tar")
    built.run("podman", "save", "-q", "-o", path, "localhost/odd:0")
    loaded.ours("load", "-q", "-i", path)
    both = str(loaded.directory / "both.tar")
    loaded.ours("save", "-q", "-m", "-o", both, ODD, "localhost/odd:0", loaded.our_digests(ODD)[0])
    loaded.run("podman", "load", "-q", "-i", both)
    for name in (ODD, "localhost/odd:0"):
        assert loaded.podman_digests(name)[0] == built.podman_digests(name)[0]
    # By its ID an image has no name.
    loaded.ours("save", "-q", "-o", both, loaded.our_digests(ODD)[0])
    loaded.forget_podman()
    assert (
        loaded.run("podman", "load", "-q", "-i", both)
        == f"Loaded image: sha256:{loaded.our_digests(ODD)[0]}\n"
    )
    # A layout that is there is added to.
    layout = str(loaded.directory / "layout")
    for name in (ODD, "localhost/odd:0", ODD):
        loaded.ours("save", "-q", "--format", "oci-dir", "-o", layout, name)
    for name in (ODD, "localhost/odd:0"):
        loaded.run("podman", "pull", "-q", f"oci:{layout}:{name}")
    assert len(json.loads(Path(layout, "index.json").read_text())["manifests"]) == 2


def test_refused(loaded: Tools) -> None:
    def fail(*words: str) -> str:
        result = subprocess.run(
            ["usercontainer", "save", *words],
            capture_output=True,
            env=loaded.environment,
            check=False,
            timeout=60,
        )
        assert (result.returncode, result.stdout) == (125, b"")
        return result.stderr.decode()

    (loaded.directory / "kept").mkdir()
    (loaded.directory / "kept" / "file").write_text("x")
    assert "is for --format docker-dir" in fail("--compress", ODD)
    assert "is not possible" in fail("--format", "zip", ODD)
    assert "needs a name" in fail("--format", "oci-dir", ODD)
    assert "one image only" in fail("--format", "docker-dir", "-o", "x", ODD, ODD)
    assert "something else" in fail("--format", "docker-dir", "-o", f"{loaded.directory}/kept", ODD)
    assert "no image 'nope'" in fail("-o", f"{loaded.directory}/x.tar", "nope")
    assert not (loaded.directory / "x.tar").exists()
