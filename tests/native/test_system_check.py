"""``usercontainer system check``: damages of every kind on a real store, full disks, read-only disks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import file
from tests.support.images import ImageMaker, Member, directory
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.checking import check_store
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images import empty_trash, open_images, pull_image
from usercontainerd.store.images import ImageStore, name_file

BUSYBOX = "localhost:5000/busybox:latest"
WEB = "localhost:5000/web:latest"


class Place:
    """A store of the test's own, used through the command."""

    def __init__(self, directory: Path) -> None:
        self.environment = {**os.environ, "XDG_DATA_HOME": str(directory)}
        self.root = directory / "usercontainerd"
        self.paths = Paths.from_environment(self.environment, os.getuid())

    @property
    def context(self) -> Context:
        return build_context(self.environment, find_programs(), os.getuid(), os.getgid())

    @property
    def images(self) -> ImageStore:
        return open_images(self.context)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["usercontainer", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in result.stderr, result.stderr
        assert not check or result.returncode == 0, (words, result.stdout, result.stderr)
        return result

    def findings(self, *words: str, expected: int) -> list[str]:
        result = self.run("system", "check", "--format", "json", *words, check=False)
        assert result.returncode == expected, (result.stdout, result.stderr)
        return [finding["kind"] for finding in json.loads(result.stdout)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path / "data")
    yield one
    if one.root.exists():
        os.rename(one.root / "layers", one.root / "trash" / "layers")
        empty_trash(one.context)


def test_whole(place: Place) -> None:
    nothing = place.run("system", "check")
    assert (nothing.stdout, nothing.stderr) == ("", "the store is whole\n")
    assert not place.root.exists()
    place.run("pull", "-q", BUSYBOX)
    place.run("pull", "-q", WEB)
    assert place.run("system", "check").stderr == "the store is whole\n"
    assert place.findings(expected=0) == []
    assert place.run("system", "check", "--quiet", "--quick").stderr == ""


def test_damage_and_repair(place: Place) -> None:
    place.run("pull", "-q", BUSYBOX)
    place.run("pull", "-q", WEB)
    web = place.images.get(WEB)
    record = Path(place.images.store.layer(web.layers[1])) / "layer.json"
    record.write_bytes(b"")
    told = place.run("system", "check", check=False)
    assert told.returncode == 1
    assert f"cannot be used: its layer {web.layers[1].hex[:12]} is damaged" in told.stdout
    assert f"`usercontainer pull {WEB}` gets it again" in told.stdout
    assert (
        told.stderr
        == "the store is not whole: 2 findings; `usercontainer system check --repair` mends what it can\n"
    )
    mended = place.run("system", "check", "--repair")
    assert mended.stderr == "the store is whole now: 2 repaired\n"
    assert os.listdir(place.root / "trash") == []
    assert place.findings(expected=0) == []
    assert WEB not in place.run("images").stdout
    assert BUSYBOX.partition(":l")[0] in place.run("images").stdout
    place.run("pull", "-q", WEB)
    assert place.images.get(WEB).id == web.id


def empty(path: Path) -> None:
    path.write_bytes(b"")


def list_records(images: ImageStore, name: str) -> list[Path]:
    """A record of each kind that the image has."""
    store = images.store
    image = images.get(name)
    return [
        Path(store.images, f"{image.id.hex}.json"),
        Path(store.names, name_file(name)),
        Path(store.layer(image.layers[-1]), "layer.json"),
        Path(store.blob(image.id)),
        Path(store.blob(image.manifest)),
    ]


def test_no_verb_crashes_on_damaged_records(place: Place) -> None:
    """Empty and cut records, as some file systems leave what was not synced before a power cut."""
    place.run("pull", "-q", BUSYBOX)
    place.run("pull", "-q", WEB)
    for path in list_records(place.images, WEB):
        empty(path)
    os.truncate(Path(place.images.store.names, name_file(BUSYBOX)), 20)
    for words in (("images",), ("ps", "-a"), ("inspect", WEB), ("system", "check")):
        place.run(*words, check=False)
    place.run("system", "check", "--repair")
    assert place.findings(expected=0) == []
    place.run("pull", "-q", BUSYBOX)
    place.run("pull", "-q", WEB)
    assert place.findings(expected=0) == []


@pytest.mark.parametrize("with_repair", [False, True])
def test_records_lost_to_a_power_cut(place: Place, with_repair: bool) -> None:
    """Each record in turn is empty: repair mends it, and so does pulling again."""
    context = place.context
    kept, image = pull_image(context, BUSYBOX), pull_image(context, WEB)
    for path in list_records(place.images, WEB):
        assert path.stat().st_size > 0
        empty(path)
        if with_repair:
            check_store(context, quick=True, repair=True)
            assert not any(finding.counts for finding in check_store(context, quick=True))
        assert pull_image(context, WEB).id == image.id
        assert check_store(context, quick=True) == []
        assert place.images.is_whole(kept)
        assert place.images.configuration(place.images.get(WEB)).command == ("/bin/serve",)


def test_layer_that_had_not_reached_the_disk(place: Place) -> None:
    context = place.context
    image = pull_image(context, WEB)
    path = Path(place.images.store.layer(image.layers[0]), "layer.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "before the power cut"}))
    assert [finding.kind for finding in check_store(context)] == ["image", "layer"]
    pull_image(context, WEB)
    assert check_store(context) == []


def web_files(place: Place) -> Path:
    return Path(place.images.layers.directory(place.images.get(WEB).layers[1]))


def test_changed_file_is_found(place: Place) -> None:
    place.run("pull", "-q", WEB)
    files = web_files(place)
    page = files / "bin" / "serve"
    before = page.stat()
    page.write_bytes(page.read_bytes().replace(b"8080", b"8081"))
    os.utime(page, ns=(before.st_atime_ns, before.st_mtime_ns))
    for words in ((), ("--quick",)):
        told = place.run("system", "check", *words, check=False)
        assert told.returncode == 1
        assert "changed on disk" in told.stdout
    place.run("system", "check", "--repair", "--quick")
    assert place.findings(expected=0) == []
    assert WEB not in place.run("images").stdout
    place.run("pull", "-q", WEB)
    assert b"8080" in (web_files(place) / "bin" / "serve").read_bytes()
    assert place.findings(expected=0) == []


def test_removed_and_added_files(place: Place) -> None:
    place.run("pull", "-q", WEB)
    files = web_files(place)
    (files / "bin" / "added").write_text("not of the image")
    told = place.run("system", "check")
    assert "was touched after it was unpacked ('bin'" in told.stdout
    assert told.stderr == "the store is whole\n"
    assert place.findings("--repair", expected=0) == ["touched"]
    (files / "bin" / "serve").unlink()
    assert place.findings("--quick", expected=1) == ["image", "layer"]


def test_what_only_the_namespace_can_read(place: Place, images: ImageMaker) -> None:
    secret: list[Member] = [
        directory("shut", uid=5, mode=0o700),
        file("shut/in", b"x", uid=5, mode=0o000),
        directory("none", mode=0),
    ]
    record = pull_image(place.context, images.add("odd", *secret))
    assert check_store(place.context) == []
    path = Path(place.images.layers.directory(record.layers[-1]), "none")
    path.chmod(0o700)
    assert [finding.kind for finding in check_store(place.context, quick=True)] == ["touched"]
