"""Which image was made from which, what filters and trees make of it, and giving and taking names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from usercontainerd.base.errors import InUse, InvalidArgument, InvalidReference, NoSuchImage
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.family import ImageFamily
from usercontainerd.engine.images.filters import ImageFilters
from usercontainerd.engine.images.history import MISSING, read_history
from usercontainerd.engine.images.inspection import inspect_image
from usercontainerd.engine.images.local import open_images
from usercontainerd.engine.images.names import plan_name, tag_image, untag_image
from usercontainerd.engine.images.removal import Removed, prune_images, remove_image
from usercontainerd.engine.images.tree import build_tree
from usercontainerd.engine.images.users import ImageUsers
from usercontainerd.oci.digest import Digest, compute_digest
from usercontainerd.store.records import ImageRecord, NameRecord


@pytest.fixture
def context(tmp_path: Path) -> Context:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    made = build_context(environment, find_programs(), os.getuid(), os.getgid())
    open_images(made).store.prepare()
    return made


def add(
    context: Context, name: str, *steps: str, named: bool = True, labels: dict[str, str] | None = None
) -> Digest:
    """An image of one layer for each step; a step in capitals has none."""
    layers = [compute_digest(step.encode()) for step in steps if not step.isupper()]
    images = open_images(context)
    configuration = {
        "rootfs": {"diff_ids": layers},
        "history": [{"created_by": step, "empty_layer": step.isupper()} for step in steps],
        "config": {"Labels": labels or {}},
    }
    with images.lock():
        image = images.blobs.add(json.dumps(configuration).encode())
        manifest = images.blobs.add(f"manifest of {steps}".encode())
        images.add(
            ImageRecord(
                image, manifest=manifest, layers=layers, size=len(steps), created=f"2026-01-{len(steps):02}T00:00:00Z",
                platform="linux/amd64", pulled=0,
            )
        )  # fmt: skip
        if named:
            images.add_name(NameRecord(f"localhost/{name}:latest", image, [manifest]))
    return image


def family_of(context: Context) -> ImageFamily:
    images = open_images(context)
    return ImageFamily(images, images.all())


def names(context: Context) -> set[str]:
    return {name.name for name in open_images(context).all_names()}


def test_parents(context: Context) -> None:
    images = open_images(context)
    base = add(context, "base", "a", named=False)
    setting = add(context, "setting", "a", "ENV", named=False)
    top = add(context, "top", "a", "ENV", "b")
    far = add(context, "far", "a", "c", "d")
    unlike = add(context, "unlike", "x", "ENV", "b")
    family = family_of(context)
    records = {record.id: record for record in images.all()}
    found = {image: family.find_parent(record) for image, record in records.items()}
    assert {image: parent.id for image, parent in found.items() if parent is not None} == {
        setting: base,
        top: setting,
    }
    assert [child.id for child in family.find_children(records[base])] == [setting]
    assert family.is_intermediate(records[base]) and not family.is_dangling(records[base])
    assert not family.is_intermediate(records[far]) and not family.is_dangling(records[unlike])
    assert [step.id for step in read_history(context, "top")] == [top.hex, setting.hex, base.hex]
    assert [step.id for step in read_history(context, "far")] == [far.hex, MISSING, MISSING]
    inspected = inspect_image(context, "top")
    assert inspected is not None and inspected["Parent"] == setting.hex and inspected["ManifestType"] == ""
    os.unlink(images.store.blob(base))  # a damaged image has no relatives, and harms no other
    assert family_of(context).find_parent(records[setting]) is None
    assert family_of(context).find_parent(records[top]) is not None


def test_steps_of_layers_without_history(context: Context) -> None:
    images = open_images(context)
    layers = [compute_digest(b"1"), compute_digest(b"2")]
    image = images.blobs.add(json.dumps({"rootfs": {"diff_ids": layers}}).encode())
    images.add(ImageRecord(image, manifest=image, layers=layers, size=0, created="", platform="", pulled=0))
    assert [step.id for step in read_history(context, image)] == [image.hex, MISSING]


def test_removal_takes_nameless_parents(context: Context) -> None:
    add(context, "base", "a")
    middle = add(context, "middle", "a", "b", named=False)
    add(context, "one", "a", "b", "c")
    two = add(context, "two", "a", "b", "d")
    assert middle not in remove_image(context, "one").deleted
    assert remove_image(context, "two", prune=True).deleted == [two, middle]
    assert names(context) == {"localhost/base:latest"}
    middle = add(context, "middle", "a", "b", named=False)
    add(context, "one", "a", "b", "c")
    assert len(remove_image(context, "one", prune=False).deleted) == 1
    assert prune_images(context).deleted == [middle]


def test_prune(context: Context) -> None:
    add(context, "kept", "a")
    steps = [add(context, "x", *"pqr"[:count], named=False) for count in (1, 2, 3)]
    chosen = prune_images(context, is_meant=lambda record: record.size > 5)
    assert (chosen.deleted, chosen.untagged) == ([], [])
    assert set(prune_images(context).deleted) == set(steps)
    everything = prune_images(context, everything=True)
    assert everything.untagged == ["localhost/kept:latest"]
    assert prune_images(context, everything=True).deleted == []


def test_pruning_takes_what_has_stopped_halfway(context: Context) -> None:
    store = open_images(context).store
    store.prepare()
    Path(store.partial, f"sha256-{'1' * 64}").write_bytes(b"half")
    assert prune_images(context, is_meant=lambda _: True).partials == []
    assert prune_images(context).partials == [4]
    assert prune_images(context).partials == []


def test_an_image_that_got_another_name_meanwhile(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from usercontainerd.engine.images import removal as image_removal

    image = add(context, "a", "x")

    def find_users(*_: object) -> ImageUsers:
        tag_image(context, "localhost/a", ["late"])
        return ImageUsers()

    monkeypatch.setattr(image_removal, "find_users", find_users)
    with pytest.raises(InUse, match="just got the name localhost/late:latest"):
        remove_image(context, image)
    assert names(context) == {"localhost/a:latest", "localhost/late:latest"}


def test_names(context: Context) -> None:
    first, second = add(context, "a", "x"), add(context, "b", "y")
    tag_image(context, "a", ["c", "example.com/d:1", "localhost/c:2"])
    assert names(context) == {
        "localhost/a:latest", "localhost/b:latest", "localhost/c:latest", "localhost/c:2", "example.com/d:1",
    }  # fmt: skip
    tag_image(context, second, ["c"])
    assert open_images(context).get("localhost/c").id == second
    with pytest.raises(InvalidReference):
        tag_image(context, "a", ["fine", "Not fine"])
    with pytest.raises(NoSuchImage):
        tag_image(context, "nothing", ["fine"])
    assert "localhost/fine:latest" not in names(context)
    with pytest.raises(NoSuchImage, match="has no name 'c'"):
        untag_image(context, "a", ["c:2", "c"])
    assert "localhost/c:2" in names(context)
    assert untag_image(context, "a", ["c:2", "localhost/c:2"]) == ["localhost/c:2"]
    assert set(untag_image(context, first)) == {"localhost/a:latest", "example.com/d:1"}
    assert untag_image(context, first) == []
    assert str(plan_name("app")) == "localhost/app:latest"
    with pytest.raises(InvalidReference, match="digest"):
        plan_name(f"app@{first}")


def test_removal_by_name_and_id(context: Context) -> None:
    image = add(context, "a", "x")
    tag_image(context, "a", ["b", "c"])
    assert remove_image(context, "b").untagged == ["localhost/b:latest"]
    with pytest.raises(InvalidArgument, match="several names: localhost/a:latest, localhost/c:latest"):
        remove_image(context, image.hex[:10])
    removed = remove_image(context, image.hex[:10], force=True)
    assert (removed.untagged, removed.deleted) == (["localhost/a:latest", "localhost/c:latest"], [image])
    with pytest.raises(NoSuchImage):
        remove_image(context, "a")
    assert (Removed().untagged, Removed().deleted) == ([], [])


def test_filters(context: Context) -> None:
    add(context, "base", "a", labels={"x": "1"})
    add(context, "top", "a", "b", labels={"x": "2", "y": ""})
    add(context, "nameless", "c", "d", "e", named=False)

    def chosen(**filters: list[str]) -> str:
        images = open_images(context)
        records = images.all()
        given = {key.replace("_not", "!"): values for key, values in filters.items()}
        test = ImageFilters(context, records, ImageUsers).build(given)
        return " ".join(
            sorted(record.names[0].name[10:-7] if record.names else "-" for record in records if test(record))
        )

    for filters, expected in (
        ({"label": ["x"]}, "base top"), ({"label": ["x=1"]}, "base"), ({"label": ["x", "y"]}, "top"),
        ({"label_not": ["x=1"]}, "- top"), ({"label_not": ["x", "y"]}, "-"), ({"dangling": ["true"]}, "-"),
        ({"dangling": ["0"]}, "base top"), ({"reference": ["base", "t*"]}, "base top"), ({"before": ["top"]}, "base"),
        ({"since": ["base"], "label": ["x"]}, "top"), ({"until": ["2026-01-01T12:00:00Z"]}, "base"),
        ({"containers": ["true"]}, ""), ({"readonly": ["false"]}, "- base top"), ({"manifest": ["1"]}, ""),
        ({"id": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"]}, "- base top"),
    ):  # fmt: skip
        assert chosen(**filters) == expected, filters
    with pytest.raises(InvalidArgument, match="possible are label, until"):
        ImageFilters(context, (), ImageUsers).build({"id": ["1"]}, ("label", "until"))


def test_tree(context: Context) -> None:
    add(context, "base", "a")
    add(context, "one", "a", "b", "c")
    add(context, "two", "a", "b", "d")
    record, nodes = build_tree(context, "one")
    assert [node.diff_id for node in nodes] == list(record.layers)
    assert [node.top_of for node in nodes] == [("localhost/base:latest",), (), ("localhost/one:latest",)]
    _, (root,) = build_tree(context, "base", dependents=True)
    (middle,) = root.above
    assert sorted(node.top_of for node in middle.above) == [
        ("localhost/one:latest",),
        ("localhost/two:latest",),
    ]
