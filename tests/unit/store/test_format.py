"""What an older version says to a store of a newer one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidFormat, StoreError
from usercontainerd.base.paths import Paths
from usercontainerd.oci.digest import compute_digest
from usercontainerd.store.images import ImageStore
from usercontainerd.store.indexes import parse_index_record
from usercontainerd.store.layers import LayerRecord, parse_layer_record
from usercontainerd.store.layout import FORMAT, Store
from usercontainerd.store.records import ImageRecord, NameRecord, parse_image_record, parse_name_record
from usercontainerd.store.tidiness import check_leftovers

DIGEST = compute_digest(b"x")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    directory = str(tmp_path)
    return Store(Paths(config=directory, data=f"{directory}/data", cache=directory, runtime_root=directory))


def test_a_store_says_its_format(store: Store) -> None:
    ImageStore(store)
    assert not Path(store.root).exists()
    assert not store.check_format()
    store.prepare()
    assert Path(store.root, "format").read_text() == f"usercontainerd-store {FORMAT}\n"
    assert store.check_format()
    store.prepare()
    assert check_leftovers(store, now=0, max_age=0) == []


def test_a_later_format_is_refused(store: Store) -> None:
    file = Path(store.root, "format")
    file.parent.mkdir(parents=True)
    file.write_text(f"usercontainerd-store {FORMAT + 1}\n")
    for use in (store.prepare, store.check_format, lambda: ImageStore(store)):
        with pytest.raises(
            StoreError, match="a later version of usercontainerd has made this store"
        ) as caught:
            use()
        assert caught.value.where == str(file)
        assert "XDG_DATA_HOME" in (caught.value.hint or "")
    assert file.read_text() == f"usercontainerd-store {FORMAT + 1}\n"
    assert list(file.parent.iterdir()) == [file]  # none of our directories was made in it


@pytest.mark.parametrize(
    "text", ["", "\n", "usercontainerd-store", "usercontainerd-store one\n", "1\n", "x 1 2\n"]
)
def test_what_is_no_format_is_named(store: Store, text: str) -> None:
    store.prepare()
    Path(store.root, "format").write_text(text)
    with pytest.raises(StoreError, match="does not"):
        ImageStore(store)


def test_an_earlier_format_is_kept(store: Store) -> None:
    store.prepare()
    Path(store.root, "format").write_text("usercontainerd-store 0\n")
    store.prepare()
    ImageStore(store)
    assert Path(store.root, "format").read_text() == "usercontainerd-store 0\n"


IMAGE = ImageRecord(DIGEST, manifest=DIGEST, layers=[DIGEST], size=1, created="", platform="", pulled=1)
RECORDS: dict[str, tuple[bytes, Callable[[bytes, str], object]]] = {
    "image": (IMAGE.render(), parse_image_record),
    "name": (NameRecord("localhost/a:1", DIGEST, []).render(), parse_name_record),
    "layer": (LayerRecord(DIGEST, size=1, entries=1).render(), parse_layer_record),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records(kind: str) -> None:
    text, parse = RECORDS[kind]
    # More keys are no reason to refuse.
    parse(json.dumps({**json.loads(text), "colour": "blue"}).encode(), "file")
    with pytest.raises(InvalidFormat, match="a later version of usercontainerd has written this"):
        parse(json.dumps({**json.loads(text), "version": 2}).encode(), "file")


def test_index_record() -> None:
    with pytest.raises(InvalidFormat, match="a later version of usercontainerd has written this"):
        parse_index_record(b'{"version": 2}', "file")
