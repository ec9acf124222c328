"""``usercontainer system check``: damages of every kind on a real store, full disks, read-only disks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.fakeregistry import file
from tests.support.images import ImageMaker, Member, directory
from tests.support.places import Place
from usercontainerd.engine.checking import check_store
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.store.images import ImageStore
from usercontainerd.store.records import name_file

BUSYBOX = "localhost:5000/busybox:latest"
WEB = "localhost:5000/web:latest"


def test_whole(store_place: Place) -> None:
    nothing = store_place.run("system", "check")
    assert (nothing.stdout, nothing.stderr) == ("", "the store is whole\n")
    assert not store_place.root.exists()
    store_place.run("pull", "-q", BUSYBOX)
    store_place.run("pull", "-q", WEB)
    assert store_place.run("system", "check").stderr == "the store is whole\n"
    assert store_place.findings(expected=0) == []
    assert store_place.run("system", "check", "--quiet", "--quick").stderr == ""


def test_damage_and_repair(store_place: Place) -> None:
    store_place.run("pull", "-q", BUSYBOX)
    store_place.run("pull", "-q", WEB)
    web = store_place.images.get(WEB)
    record = Path(store_place.images.store.layer(web.layers[1])) / "layer.json"
    record.write_bytes(b"")
    told = store_place.run("system", "check", check=False)
    assert told.returncode == 1
    assert f"cannot be used: its layer {web.layers[1].hex[:12]} is damaged" in told.stdout
    assert f"`usercontainer pull {WEB}` gets it again" in told.stdout
    assert (
        told.stderr
        == "the store is not whole: 2 findings; `usercontainer system check --repair` mends what it can\n"
    )
    mended = store_place.run("system", "check", "--repair")
    assert mended.stderr == "the store is whole now: 2 repaired\n"
    assert os.listdir(store_place.root / "trash") == []
    assert store_place.findings(expected=0) == []
    assert WEB not in store_place.run("images").stdout
    assert BUSYBOX.partition(":l")[0] in store_place.run("images").stdout
    store_place.run("pull", "-q", WEB)
    assert store_place.images.get(WEB).id == web.id


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


def test_no_verb_crashes_on_damaged_records(store_place: Place) -> None:
    """Empty and cut records, as some file systems leave what was not synced before a power cut."""
    store_place.run("pull", "-q", BUSYBOX)
    store_place.run("pull", "-q", WEB)
    for path in list_records(store_place.images, WEB):
        empty(path)
    os.truncate(Path(store_place.images.store.names, name_file(BUSYBOX)), 20)
    for words in (("images",), ("ps", "-a"), ("inspect", WEB), ("system", "check")):
        store_place.run(*words, check=False)
    store_place.run("system", "check", "--repair")
    assert store_place.findings(expected=0) == []
    store_place.run("pull", "-q", BUSYBOX)
    store_place.run("pull", "-q", WEB)
    assert store_place.findings(expected=0) == []


def test_damaged_record_of_a_container(store_place: Place) -> None:
    run = store_place.run
    name = f"damaged-{os.urandom(3).hex()}"
    run("create", "-q", "--name", name, BUSYBOX, "true")
    try:
        definition = store_place.root / "created" / f"{name}.toml"
        for content in (b"image = ", definition.read_bytes()[:-30], b"\0" * 100, b""):
            definition.write_bytes(content)
            assert name in run("ps", "-a").stdout
            for words in (
                ("inspect", name),
                ("start", name),
                ("images",),
                ("exec", name, "true"),
                ("logs", name),
            ):
                run(*words, check=False)
            assert store_place.findings(expected=0) == ["container"]
    finally:
        run("rm", "-f", name)
    assert name not in run("ps", "-a").stdout


@pytest.mark.parametrize("with_repair", [False, True])
def test_records_lost_to_a_power_cut(store_place: Place, with_repair: bool) -> None:
    """Each record in turn is empty: repair mends it, and so does pulling again."""
    context = store_place.context
    kept, image = pull_image(context, BUSYBOX), pull_image(context, WEB)
    for path in list_records(store_place.images, WEB):
        assert path.stat().st_size > 0
        empty(path)
        if with_repair:
            check_store(context, quick=True, repair=True)
            assert not any(finding.counts for finding in check_store(context, quick=True))
        assert pull_image(context, WEB).id == image.id
        assert check_store(context, quick=True) == []
        assert store_place.images.is_whole(kept)
        assert store_place.images.configuration(store_place.images.get(WEB)).command == ("/bin/serve",)


def test_layer_that_had_not_reached_the_disk(store_place: Place) -> None:
    context = store_place.context
    image = pull_image(context, WEB)
    path = Path(store_place.images.store.layer(image.layers[0]), "layer.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "before the power cut"}))
    assert [finding.kind for finding in check_store(context)] == ["image", "layer"]
    pull_image(context, WEB)
    assert check_store(context) == []


def web_files(store_place: Place) -> Path:
    return Path(store_place.images.layers.directory(store_place.images.get(WEB).layers[1]))


def test_changed_file_is_found(store_place: Place) -> None:
    store_place.run("pull", "-q", WEB)
    files = web_files(store_place)
    page = files / "bin" / "serve"
    before = page.stat()
    page.write_bytes(page.read_bytes().replace(b"8080", b"8081"))
    os.utime(page, ns=(before.st_atime_ns, before.st_mtime_ns))
    for words in ((), ("--quick",)):
        told = store_place.run("system", "check", *words, check=False)
        assert told.returncode == 1
        assert "changed on disk" in told.stdout
    store_place.run("system", "check", "--repair", "--quick")
    assert store_place.findings(expected=0) == []
    assert WEB not in store_place.run("images").stdout
    store_place.run("pull", "-q", WEB)
    assert b"8080" in (web_files(store_place) / "bin" / "serve").read_bytes()
    assert store_place.findings(expected=0) == []


def test_removed_and_added_files(store_place: Place) -> None:
    store_place.run("pull", "-q", WEB)
    files = web_files(store_place)
    (files / "bin" / "added").write_text("not of the image")
    told = store_place.run("system", "check")
    assert "was touched after it was unpacked ('bin'" in told.stdout
    assert told.stderr == "the store is whole\n"
    assert store_place.findings("--repair", expected=0) == ["touched"]
    (files / "bin" / "serve").unlink()
    assert store_place.findings("--quick", expected=1) == ["image", "layer"]


def test_what_only_the_namespace_can_read(store_place: Place, images: ImageMaker) -> None:
    secret: list[Member] = [
        directory("shut", uid=5, mode=0o700),
        file("shut/in", b"x", uid=5, mode=0o000),
        directory("none", mode=0),
    ]
    record = pull_image(store_place.context, images.add("odd", *secret))
    assert check_store(store_place.context) == []
    path = Path(store_place.images.layers.directory(record.layers[-1]), "none")
    path.chmod(0o700)
    assert [finding.kind for finding in check_store(store_place.context, quick=True)] == ["touched"]


def test_kept_blobs_are_read_too(store_place: Place, images: ImageMaker) -> None:
    """Large ones by a full check only."""
    configuration = Path(store_place.environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    settings = configuration / "usercontainerd" / "usercontainerd.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    assert not settings.exists()
    settings.write_text("[store]\nkeep_blobs = true\n")
    try:
        record = pull_image(
            store_place.context, images.add("kept-blob", file("large", os.urandom(5_000_000)))
        )
    finally:
        settings.unlink()
    layer = store_place.images.layers.read(record.layers[-1])
    assert layer is not None
    path = Path(store_place.images.store.blob(layer.blobs[0].digest))
    assert path.stat().st_size > 4 * 1024 * 1024
    assert check_store(store_place.context) == []
    with path.open("r+b") as blob:
        blob.seek(1_000_000)
        blob.write(b"changed on disk")
    assert check_store(store_place.context, quick=True) == []
    assert [finding.kind for finding in check_store(store_place.context, repair=True)] == ["blob"]
    assert not path.exists()
    assert check_store(store_place.context) == []
