"""Image records and names, layers, stages: what is found, what is collected, what another process may take away."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from usercontainerd.base.errors import (
    Busy,
    DigestMismatch,
    InUse,
    InvalidReference,
    NoSuchImage,
    StoreError,
)
from usercontainerd.base.paths import Paths
from usercontainerd.oci.digest import Digest, compute_digest
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layers import LayerBlob, LayerRecord
from usercontainerd.store.layout import Store
from usercontainerd.store.records import ImageRecord, NameRecord, name_file
from usercontainerd.store.stage import Stage, sweep_stages


@pytest.fixture
def store(tmp_path: Path) -> Store:
    directory = str(tmp_path)
    store = Store(Paths(config=directory, data=f"{directory}/data", cache=directory, runtime_root=directory))
    store.prepare()
    return store


@pytest.fixture
def images(store: Store) -> ImageStore:
    return ImageStore(store)


def add_layer(images: ImageStore, number: int, *, size: int = 10) -> Digest:
    diff_id = compute_digest(f"layer {number}".encode())
    with Stage(images.store) as stage, images.layers.lock(diff_id):
        directory = stage.make_directory(diff_id.hex)
        Path(directory, "diff", "file").write_bytes(b"x" * size)
        blob = LayerBlob(compute_digest(b"blob"), 5, "application/x")
        images.layers.commit(directory, LayerRecord(diff_id, size=size, entries=1, blobs=[blob]))
        os.unlink(f"{stage.path}/lock")
        os.rmdir(stage.path)
    return diff_id


def add_image(
    images: ImageStore, name: str, layers: list[Digest], *, content: str = "", pulled: int = 0
) -> Digest:
    digests = [compute_digest(part.encode()) for part in (f"index {name}", f"manifest {name}")]
    with images.lock():
        image_id = images.blobs.add(
            json.dumps({"rootfs": {"diff_ids": layers}, "comment": content or name}).encode()
        )
        for text in ("index", "manifest"):
            images.blobs.add(f"{text} {name}".encode())
        images.add(
            ImageRecord(
                image_id,
                manifest=digests[1],
                layers=layers,
                size=10,
                created="2026-01-01T00:00:00Z",
                platform="linux/amd64",
                pulled=pulled,
            )
        )
        images.add_name(NameRecord(name, image_id, digests))
    return image_id


def test_empty(images: ImageStore, tmp_path: Path) -> None:
    assert images.all() == []
    assert images.find("busybox") is None
    nowhere = ImageStore(Store(Paths(config="/x", data=f"{tmp_path}/none", cache="/x", runtime_root="/x")))
    assert nowhere.all() == []
    assert nowhere.find("busybox") is None
    assert list(nowhere.layers.all()) == []
    with pytest.raises(NoSuchImage, match=r"no image 'busybox' here \(usercontainer pull busybox\)"):
        nowhere.get("busybox")


def test_find(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    busybox = add_image(images, "docker.io/library/busybox:latest", [layer])
    local = add_image(images, "localhost/app:1", [layer])
    quay = add_image(images, "quay.io/team/app:1", [layer])
    for text, expected in (
        ("busybox", busybox),
        ("busybox:latest", busybox),
        ("docker.io/busybox", busybox),
        ("docker.io/library/busybox:latest", busybox),
        (f"busybox@{compute_digest(b'index docker.io/library/busybox:latest')}", busybox),
        (f"busybox@{compute_digest(b'manifest docker.io/library/busybox:latest')}", busybox),
        ("app:1", local),
        ("quay.io/team/app:1", quay),
        (busybox, busybox),
        (busybox.hex, busybox),
        (busybox.hex[:12], busybox),
        (f"sha256:{busybox.hex[:5]}", busybox),
    ):
        found = images.find(text)
        assert found is not None, text
        assert found.id == expected, text
        assert found.names
    for text in (
        "app",
        "team/app:1",
        "quay.io/team/app",
        "busybox:1",
        f"x@{busybox}",
        "sha256:" + "0" * 64,
        "f" * 64,
    ):
        assert images.find(text) is None, text
    found = images.find("team/app:1", ["docker.io", "quay.io"])
    assert found is not None
    with pytest.raises(InvalidReference):
        images.find("NOT an image")


def test_ambiguous_prefix(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    for number in range(300):
        add_image(images, "localhost/x:1", [layer], content=str(number))
    with pytest.raises(InvalidReference, match="not unique"):
        for first in "0123456789abcdef":
            for second in "0123456789abcdef":
                images.find(first + second)


def test_all_newest_first_with_names(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    old = add_image(images, "localhost/a:1", [layer], pulled=1)
    new = add_image(images, "localhost/b:1", [layer], pulled=2)
    with images.lock():
        images.add_name(NameRecord("localhost/c:1", old, []))
    assert [(image.id, [name.name for name in image.names]) for image in images.all()] == [
        (new, ["localhost/b:1"]),
        (old, ["localhost/a:1", "localhost/c:1"]),
    ]


def test_a_moved_name_leaves_a_nameless_image(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    first = add_image(images, "localhost/a:1", [layer], content="1")
    second = add_image(images, "localhost/a:1", [layer], content="2")
    found = images.find("localhost/a:1")
    assert found is not None
    assert found.id == second
    nameless = images.find(first)
    assert nameless is not None
    assert nameless.names == ()


def test_long_names(images: ImageStore) -> None:
    name = f"registry.example.com/{'a' * 250}:{'t' * 128}"
    assert len(name_file(name)) <= 255
    image = add_image(images, name, [add_layer(images, 1)])
    found = images.find(name)
    assert found is not None
    assert found.id == image


def test_layer_directories(images: ImageStore) -> None:
    layers = [add_layer(images, number) for number in range(3)]
    add_image(images, "localhost/a:1", [layers[0], layers[1], layers[0], layers[2]])
    record = images.get("localhost/a:1")
    # A directory can be mounted once; its upper place decides.
    wanted = (layers[1], layers[0], layers[2])
    assert images.layer_directories(record) == tuple(images.layers.directory(layer) for layer in wanted)
    assert images.is_whole(record)
    images.layers.discard(layers[1])
    assert not images.is_whole(record)
    with pytest.raises(StoreError, match=r"a layer of the image .* is missing.*pull the image again"):
        images.layer_directories(record)


def test_configuration_is_checked(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    image = add_image(images, "localhost/a:1", [layer])
    record = images.get("localhost/a:1")
    assert images.configuration(record).diff_ids == (layer,)
    Path(images.store.blob(image)).write_bytes(b"{}")
    with pytest.raises(DigestMismatch, match=image):
        images.configuration(record)
    os.unlink(images.store.blob(image))
    with pytest.raises(StoreError, match="pull the image again"):
        images.configuration(record)


def test_removal_keeps_what_others_need(images: ImageStore) -> None:
    shared, own = add_layer(images, 1), add_layer(images, 2)
    add_image(images, "localhost/a:1", [shared])
    add_image(images, "localhost/b:1", [shared, own])
    blobs = set(images.blobs.all())
    with images.lock():
        gone = images.remove(images.get("localhost/b:1"))
    assert gone == [own]
    assert images.layers.has(shared)
    assert not images.layers.has(own)
    assert len(os.listdir(images.store.trash)) == 1
    assert len(blobs - set(images.blobs.all())) == 3
    assert images.find("localhost/b:1") is None
    assert images.is_whole(images.get("localhost/a:1"))


def test_removal_leaves_layers_that_somebody_holds(images: ImageStore) -> None:
    layer, held = add_layer(images, 1), add_layer(images, 2)
    with images.layers.lock(held, exclusive=False), images.lock():
        assert images.collect() == [layer]
    with images.lock():
        assert images.collect() == [held]


def test_layers_from_another_boot_count_only_once_synced(images: ImageStore, store: Store) -> None:
    synced, unsynced = add_layer(images, 1), add_layer(images, 2)
    images.layers.make_durable([synced])
    after_reboot = ImageStore(store)
    after_reboot.layers._boot_id = "another"
    assert images.layers.has(unsynced)
    assert after_reboot.layers.has(synced)
    assert not after_reboot.layers.has(unsynced)
    # Making it again takes the place of the doubtful one.
    assert add_layer(after_reboot, 2) == unsynced
    assert after_reboot.layers.has(unsynced)
    assert len(os.listdir(store.trash)) == 1


def test_damaged_layer_records_do_not_count(images: ImageStore, store: Store) -> None:
    layer = add_layer(images, 1)
    path = Path(store.layer(layer), "layer.json")
    record = json.loads(path.read_text())
    assert record["blobs"][0]["size"] == 5
    for text in ("", "{", json.dumps({**record, "diff_id": "x"}), json.dumps({**record, "size": -1})):
        path.write_text(text)
        assert not images.layers.has(layer)
    path.write_text(json.dumps({**record, "diff_id": compute_digest(b"other")}))
    assert not images.layers.has(layer)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1, "id": "sha256:1"}'])
def test_damaged_records_stop_nothing_else(images: ImageStore, store: Store, text: str) -> None:
    layers = [add_layer(images, number) for number in range(3)]
    damaged = add_image(images, "localhost/a:1", [layers[0]])
    kept = add_image(images, "localhost/b:1", [layers[1]])
    assert images.unreadable() == []
    path = Path(store.images, f"{damaged.hex}.json")
    whole = path.read_text()
    for content in (text, Path(store.images, f"{kept.hex}.json").read_text()):
        path.write_text(content)
        assert [record.id for record in images.all()] == [kept]
        assert images.read(damaged) is None
        assert images.find("localhost/a:1") is None
        assert images.unreadable() == [str(path)]
        # What it leads to is not known: nothing is put away.
        assert images.collect() == []
    path.write_text(whole)
    name = Path(store.names, name_file("localhost/b:1"))
    name.write_text(text)
    assert [each.name for each in images.all_names()] == ["localhost/a:1"]
    assert images.read_name("localhost/b:1") is None
    assert images.collect() == []
    name.unlink()
    name.mkdir()
    assert images.unreadable() == [str(name)]
    name.rmdir()
    assert images.collect() == [layers[2]]


def test_layers_of_running_containers_stay(
    images: ImageStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, other = add_layer(images, 1), add_layer(images, 2)
    bundle = Path(store.runtime, "containers", "app")
    (bundle / "lower").mkdir(parents=True)
    (bundle / "lower" / "0").symlink_to(images.layers.directory(layer))
    (bundle / "pid").write_text("17")
    cgroups: dict[int, str] = {17: "/user.slice/container.slice/container@app.service/container"}
    monkeypatch.setattr("usercontainerd.store.usage.read_cgroup", cgroups.get)
    assert images.collect() == [other]
    # A damaged one is not taken away from below its container.
    Path(store.layer(layer), "layer.json").write_text("")
    with pytest.raises(InUse, match="container app"):
        add_layer(images, 1)
    # The number is another process's by now.
    cgroups[17] = "/user.slice/container.slice/container@other.service/container"
    assert images.collect() == [layer]


def test_stray_files_are_no_records(images: ImageStore, store: Store) -> None:
    for directory in (store.images, store.names):
        Path(directory, ".new-1-x").write_text("half")
        Path(directory, "README").write_text("?")
    Path(store.layers, "stray").mkdir()
    assert images.all() == []
    with images.lock():
        assert images.collect() == []


def test_sweep_takes_only_what_is_dead(store: Store) -> None:
    dead = Stage(store)
    with dead:
        dead.make_directory("layer")
        with Stage(store) as living:
            assert sweep_stages(store) == []
            dead._lock.release()  # type: ignore[union-attr]
            assert sweep_stages(store) == [dead.name]
            assert os.path.isdir(living.path)
    assert dead.name in os.listdir(store.trash)


def test_sweep_after_kill(store: Store) -> None:
    script = (
        "import sys, time\n"
        "from usercontainerd.base.paths import Paths\n"
        "from usercontainerd.store.layout import Store\n"
        "from usercontainerd.store.stage import Stage\n"
        "store = Store(Paths(config='/x', data=sys.argv[1], cache='/x', runtime_root='/x'))\n"
        "with Stage(store) as stage:\n"
        "    stage.make_directory('layer')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, store.root], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert sweep_stages(store) == []
    process.kill()
    process.communicate()
    assert len(sweep_stages(store)) == 1
    assert os.listdir(store.staging) == []


def test_a_directory_without_lock_is_swept(store: Store) -> None:
    os.mkdir(f"{store.staging}/pull-1-x")
    sweep_stages(store)
    assert os.listdir(store.staging) == []


def test_downgraded_locks_share(images: ImageStore) -> None:
    diff_id = compute_digest(b"x")
    lock = images.layers.lock(diff_id)
    lock.acquire()
    other = images.layers.lock(diff_id, exclusive=False, wait=False)
    with pytest.raises(Busy):
        other.acquire()
    lock.downgrade()
    other.acquire()
    with pytest.raises(Busy):
        images.layers.lock(diff_id, wait=False).acquire()
    other.release()
    lock.release()
    with images.layers.lock(diff_id, wait=False):
        pass


def test_two_hundred_images_are_listed_quickly(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    for number in range(200):
        path = Path(images.store.images, f"{number:064x}.json")
        record = ImageRecord(
            Digest(f"sha256:{number:064x}"),
            manifest=layer,
            layers=[layer],
            size=1,
            created="",
            platform="linux/amd64",
            pulled=number,
        )
        path.write_bytes(record.render())
    start = time.process_time()
    assert len(images.all()) == 200
    assert time.process_time() - start < 2  # a guard against quadratic work only


def test_what_blobs_are_needed(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    kept = add_image(images, "localhost/a:1", [layer])
    add_image(images, "localhost/b:1", [add_layer(images, 2)])
    with images.lock():
        needed = images.needed_blobs()
        record = images.get(kept)
        assert {kept, record.manifest, *record.names[0].digests, compute_digest(b"blob")} <= needed
        assert images.needed_layers() == {layer, compute_digest(b"layer 2")}
        images.blobs.add(b"blob")  # a layer that is kept compressed
        images.remove(images.get("localhost/b:1"))
        assert images.blobs.has(compute_digest(b"blob"))
        images.remove(images.get(kept))
    assert list(images.blobs.all()) == []


def test_names_that_an_image_had(images: ImageStore) -> None:
    layer = add_layer(images, 1)
    first = add_image(images, "localhost/a:1", [layer], content="1")
    second = add_image(images, "localhost/b:1", [layer], content="2")
    with images.lock():
        for name in ("localhost/a:1", "localhost/a:1", "localhost/c:1"):
            images.add_name(NameRecord(name, second, []))
        images.remove_name("localhost/c:1")
        images.remove_name("localhost/nothing:1")
    assert images.get(first).name_history == ["localhost/a:1"]
    assert images.get(second).name_history == ["localhost/a:1", "localhost/b:1", "localhost/c:1"]
    with images.lock():
        for number in range(120):
            images.add_name(NameRecord(f"localhost/x:{number}", first, []))
            images.remove_name(f"localhost/x:{number}")
    history = images.get(first).name_history
    assert len(history) == 100 and history[0] == "localhost/x:119"
