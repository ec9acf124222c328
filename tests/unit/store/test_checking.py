"""system check: every damage is found, mended once, and never at the cost of what is whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.stores import add_image, add_layer, build_store
from usercontainerd.kernel.atomicfile import FileLock
from usercontainerd.store.checking import StoreCheck
from usercontainerd.store.findings import Finding, Severity
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layout import Store
from usercontainerd.store.records import ImageRecord, name_file
from usercontainerd.store.stage import Stage
from usercontainerd.store.tidiness import check_directories, check_leftovers, sweep_locks

DAY = 86400.0
A, B = "localhost/a:1", "localhost/b:1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return build_store(tmp_path)


@pytest.fixture
def images(store: Store) -> ImageStore:
    return ImageStore(store)


def look(images: ImageStore, *, max_age: float = DAY, later: float = 0.0) -> list[Finding]:
    """All findings, as ``system check`` puts them together."""
    now = time.time() + later
    with images.lock():
        found = StoreCheck(images, now=now, max_age=max_age).run()
    return [
        *check_directories(images.store),
        *found,
        *check_leftovers(images.store, now=now, max_age=max_age),
    ]


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def mend(findings: list[Finding]) -> None:
    for finding in findings:
        finding.mend()
        assert finding.problem == ""
        assert finding.repaired == (finding.severity != Severity.NOTE)


def record_of(images: ImageStore, image: ImageRecord) -> Path:
    return Path(images.store.images, f"{image.id.hex}.json")


def layer_of(images: ImageStore, image: ImageRecord, number: int = 0) -> Path:
    return Path(images.store.layer(image.layers[number]))


def test_whole_store(images: ImageStore) -> None:
    add_image(images, A, ("one", "two"))
    add_image(images, B, ("two", "three"))
    assert look(images) == []


def test_nothing_at_all(images: ImageStore) -> None:
    assert look(images) == []


def lose_layer(images: ImageStore, image: ImageRecord) -> None:
    os.rename(layer_of(images, image), f"{images.store.trash}/x")


def empty_layer_record(images: ImageStore, image: ImageRecord) -> None:
    (layer_of(images, image) / "layer.json").write_bytes(b"")


def remove_layer_record(images: ImageStore, image: ImageRecord) -> None:
    (layer_of(images, image) / "layer.json").unlink()


def undo_sync(images: ImageStore, image: ImageRecord) -> None:
    path = layer_of(images, image) / "layer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "an earlier one"}))


def swap_layer_record(images: ImageStore, image: ImageRecord) -> None:
    other = Path(images.store.layer(image.layers[1]), "layer.json").read_bytes()
    (layer_of(images, image) / "layer.json").write_bytes(other)


def lose_files(images: ImageStore, image: ImageRecord) -> None:
    os.rename(layer_of(images, image) / "diff", f"{images.store.trash}/x")


def lose_configuration(images: ImageStore, image: ImageRecord) -> None:
    os.unlink(images.store.blob(image.id))


def truncate_configuration(images: ImageStore, image: ImageRecord) -> None:
    os.truncate(images.store.blob(image.id), 10)


def lose_record(images: ImageStore, image: ImageRecord) -> None:
    record_of(images, image).unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lose_layer, ["image"]),
        (empty_layer_record, ["image", "layer"]),
        (remove_layer_record, ["image", "layer"]),
        (undo_sync, ["image", "layer"]),
        (swap_layer_record, ["image", "layer"]),
        (lose_files, ["image", "layer"]),
        (lose_configuration, ["image"]),
        (truncate_configuration, ["image", "blob"]),
        (lose_record, ["name"]),
    ],
)
def test_lost_image_is_forgotten(
    images: ImageStore, damage: Callable[[ImageStore, ImageRecord], None], expected: list[str]
) -> None:
    lost, kept = add_image(images, A, ("one", "shared")), add_image(images, B, ("shared",))
    damage(images, lost)
    findings = look(images)
    assert kinds(findings) == expected
    assert all(finding.severity == Severity.DAMAGE and finding.repair for finding in findings)
    assert f"usercontainer pull {A}" in findings[0].repair
    mend(findings)
    assert look(images) == []
    assert [record.id for record in images.all()] == [kept.id]
    assert images.is_whole(kept)
    assert [name.name for name in images.all_names()] == [B]


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 200, b'{"version": 1}'])
def test_unreadable_image_record_is_made_anew(images: ImageStore, content: bytes) -> None:
    image = add_image(images, A, ("one", "two"))
    record_of(images, image).write_bytes(content)
    findings = look(images)
    assert kinds(findings) == ["image-record"]
    assert A in findings[0].what
    mend(findings)
    assert look(images) == []
    (again,) = images.all()
    assert (again.id, again.layers, again.manifest, again.size) == (
        image.id,
        image.layers,
        image.manifest,
        image.size,
    )


def test_record_that_became_a_directory(images: ImageStore) -> None:
    image = add_image(images, A, ("one",))
    for path in (record_of(images, image), Path(images.store.names, name_file(A))):
        path.unlink()
        path.mkdir()
        (path / "x").touch()
    findings = look(images)
    assert kinds(findings) == ["image-record", "name"]
    mend(findings)
    assert look(images) == []
    assert images.all()[0].id == image.id


def test_record_without_manifest_cannot_be_made_anew(images: ImageStore) -> None:
    image = add_image(images, A, ("one",))
    record_of(images, image).write_bytes(b"")
    os.unlink(images.store.blob(image.manifest))
    findings = look(images)
    assert kinds(findings) == ["image"]
    mend(findings)
    assert look(images) == []


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"version": 1, "name": "localhost/other:1"}'])
def test_unreadable_name(images: ImageStore, content: bytes) -> None:
    image = add_image(images, A, ("one",))
    Path(images.store.names, name_file(A)).write_bytes(content)
    findings = look(images)
    assert kinds(findings) == ["name"]
    assert A in findings[0].what
    mend(findings)
    assert look(images) == []
    assert images.is_whole(image)


def test_lost_manifest_is_only_noted(images: ImageStore) -> None:
    image = add_image(images, A, ("one",))
    path = Path(images.store.blob(image.manifest))
    path.write_bytes(b"flipped")
    findings = look(images)
    assert kinds(findings) == ["blob", "manifest"]
    mend(findings)
    assert not path.exists()  # so that the next pull writes it
    findings = look(images)
    assert [finding.severity for finding in findings] == [Severity.NOTE]
    assert images.is_whole(image)


def test_what_is_left_of_an_image_stays_for_a_day(images: ImageStore) -> None:
    image = add_image(images, A, ("one", "two"))
    os.utime(layer_of(images, image, 1) / "layer.json", (1, 1))
    lose_layer(images, image)
    mend(look(images))
    assert images.layers.has(image.layers[1])
    assert look(images) == []
    findings = look(images, later=DAY + 60)
    assert kinds(findings) == ["unused-layer", "unused-blob", "unused-blob", "trash"]
    mend(findings[:3])
    assert not images.layers.has(image.layers[1])


def test_unused_things_count_when_they_are_old(images: ImageStore) -> None:
    image = add_image(images, A, ("one",))
    layer = add_layer(images, "unused")
    blob = images.blobs.add(b"unused")
    assert look(images) == []
    findings = look(images, later=DAY + 1)
    assert kinds(findings) == ["unused-layer", "unused-blob"]
    with images.layers.lock(layer, exclusive=False):  # a pull wants it
        assert kinds(look(images, max_age=0)) == ["unused-blob"]
        findings[0].mend()
        assert not findings[0].repaired
        assert findings[0].problem
    mend(look(images, max_age=0))
    assert not images.layers.has(layer)
    assert not images.blobs.has(blob)
    assert kinds(look(images, max_age=0)) == ["trash"]
    assert images.is_whole(image)


def test_layer_that_another_process_makes_anew_is_no_damage(images: ImageStore) -> None:
    image = add_image(images, A, ("one",))
    empty_layer_record(images, image)
    with images.layers.lock(image.layers[0]):
        assert look(images) == []
    lose_layer(images, image)
    with images.layers.lock(image.layers[0]):
        assert look(images) == []
    assert kinds(look(images)) == ["image"]


def test_layer_below_a_running_container_stays(images: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add_image(images, A, ("one",))
    bundle = Path(images.store.runtime, "containers", "app")
    (bundle / "lower").mkdir(parents=True)
    (bundle / "lower" / "0").symlink_to(images.layers.directory(image.layers[0]))
    (bundle / "pid").write_text("17")
    monkeypatch.setattr(
        "usercontainerd.store.usage.read_cgroup", {17: "/x/container@app.service/container"}.get
    )
    empty_layer_record(images, image)
    findings = look(images)
    assert kinds(findings) == ["image", "layer"]
    assert "container app" in findings[1].repair
    for finding in findings:
        finding.mend()
    assert "container app" in findings[1].problem
    assert layer_of(images, image).exists()
    monkeypatch.setattr("usercontainerd.store.usage.read_cgroup", {}.get)
    mend(look(images))
    assert look(images) == []


def test_leftovers_of_killed_processes(images: ImageStore, store: Store) -> None:
    image = add_image(images, A, ("one",))
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    places = [store.images, store.names, f"{store.root}/blobs/sha256", store.layer(image.layers[0])]
    for place in places:
        Path(place, f".new-{dead}-1-1-x").write_text("half")
        Path(place, f".new-{os.getpid()}-1-1-x").write_text("being written")
    with Stage(store) as stage:
        Path(stage.path, "half").touch()
        assert look(images) == []  # somebody may be at it
        assert kinds(look(images, later=120)) == ["temporary"] * 4
    findings = look(images, later=120)
    assert kinds(findings) == ["stage", *["temporary"] * 4]
    mend(findings)
    assert look(images, later=120) == []
    assert os.listdir(store.staging) == []
    assert all(any(name.startswith(f".new-{os.getpid()}") for name in os.listdir(place)) for place in places)
    findings = look(images, later=2 * DAY)
    assert kinds(findings) == ["trash", *["temporary"] * 4]
    assert not findings[0].repaired  # it is deleted inside the user namespace


def test_partial_downloads(images: ImageStore, store: Store) -> None:
    path = Path(store.partial, f"sha256-{'0' * 64}")
    path.write_bytes(b"half")
    assert look(images, later=6 * DAY) == []
    with FileLock(str(path)):
        assert look(images, later=8 * DAY) == []
    mend(look(images, later=8 * DAY))
    assert not path.exists()


def test_locks_of_layers_that_are_gone(images: ImageStore, store: Store) -> None:
    image = add_image(images, A, ("one",))
    gone, wanted = add_layer(images, "gone"), add_layer(images, "wanted")
    for diff_id in (gone, wanted):
        with images.layers.lock(diff_id):
            images.layers.discard(diff_id)
    with images.layers.lock(wanted):  # a pull makes it anew
        assert sweep_locks(store) == 1
    assert sorted(os.listdir(f"{store.root}/locks")) == sorted(
        ["images", f"layer-{image.layers[0].hex}", f"layer-{wanted.hex}"]
    )


def test_foreign_files_are_noted_and_kept(images: ImageStore, store: Store) -> None:
    strange = [f"{store.root}/notes", f"{store.images}/README.json", f"{store.names}/x", f"{store.layers}/y"]
    for path in strange:
        Path(path).write_text("mine")
    findings = look(images, later=2 * DAY)
    assert sorted(finding.where for finding in findings) == sorted(strange)
    mend(findings)
    assert all(map(os.path.exists, strange))
    layer = add_layer(images, "unused")
    assert images.collect() == [layer]  # they do not stand in the way


def test_modes(images: ImageStore, store: Store) -> None:
    for path in (store.root, store.layers, f"{store.root}/blobs"):
        os.chmod(path, 0o755)
    findings = look(images)
    assert kinds(findings) == ["mode"] * 3
    mend(findings)
    assert look(images) == []
    assert os.stat(store.layers).st_mode & 0o777 == 0o700


def test_fifo_is_not_waited_for(images: ImageStore, store: Store) -> None:
    os.mkfifo(f"{store.root}/blobs/sha256/{'0' * 64}")
    assert kinds(look(images)) == ["blob"]


def test_a_busy_finding_is_told(store: Store) -> None:
    with FileLock(store.lock("x")):
        finding = Finding("x", Severity.DAMAGE, "x", "x", mend=FileLock(store.lock("x"), wait=False).acquire)
        finding.mend()
        assert finding.problem == "another process is working on it"
        assert finding.counts
