"""``usercontainer system check``: damages of every kind on a real store, full disks, read-only disks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images import empty_trash, open_images
from usercontainerd.store.images import ImageStore

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


def test_records_lost_to_a_power_cut(place: Place) -> None:
    """Each record in turn is empty, as some file systems leave what was not synced: no verb crashes, repair mends."""
    place.run("pull", "-q", BUSYBOX)
    place.run("pull", "-q", WEB)
    store = place.images.store
    web = place.images.get(WEB)
    victims = [
        Path(store.images, f"{web.id.hex}.json"),
        next(Path(store.names).glob("*web*")),
        Path(store.layer(web.layers[1]), "layer.json"),
        Path(store.blob(web.id)),
        Path(store.blob(web.manifest)),
    ]
    for victim in victims:
        assert victim.stat().st_size > 0
        empty(victim)
        place.run("images")
        place.run("ps", "-a")
        place.run("inspect", WEB, check=False)
        place.run("system", "check", check=False)
        place.run("system", "check", "--repair")
        assert [kind for kind in place.findings(expected=0) if kind != "manifest"] == []
        place.run("pull", "-q", WEB)
        assert place.findings(expected=0) == []
        assert place.images.is_whole(place.images.get(BUSYBOX))
        assert place.images.configuration(place.images.get(WEB)).command == ("/bin/serve",)


def test_pull_alone_mends_most(place: Place) -> None:
    """Who knows nothing of ``system check`` pulls again."""
    place.run("pull", "-q", WEB)
    store = place.images.store
    web = place.images.get(WEB)
    for victim in (
        Path(store.images, f"{web.id.hex}.json"),
        next(Path(store.names).glob("*web*")),
        Path(store.layer(web.layers[1]), "layer.json"),
        Path(store.blob(web.id)),
        Path(store.blob(web.manifest)),
    ):
        empty(victim)
        place.run("pull", "-q", WEB)
        assert place.findings(expected=0) == []
    path = Path(store.layer(web.layers[0]), "layer.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "before the power cut"}))
    place.run("pull", "-q", WEB)
    assert place.findings(expected=0) == []
