"""Blobs that have come in part."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.oci.digest import compute_digest
from usercontainerd.store import partial
from usercontainerd.store.layout import Store
from usercontainerd.store.locks import is_held
from usercontainerd.store.partial import (
    measure_partial,
    measure_partials,
    open_partial,
    partial_path,
    remove_partials,
    sweep_partials,
)

DIGEST = compute_digest(b"whole")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Paths(config="/c", data=str(tmp_path / "data"), cache="/c", runtime_root="/r"))
    made.prepare()
    return made


def test_the_next_one_finds_what_came(store: Store) -> None:
    first = open_partial(store, DIGEST)
    assert first is not None
    first.append(b"who")
    assert open_partial(store, DIGEST) is None  # one writer at a time
    first.close()
    first.close()
    assert measure_partial(store, DIGEST) == 3
    second = open_partial(store, DIGEST)
    assert second is not None
    assert b"".join(second.pieces()) == b"who"
    second.append(b"le")
    assert second.size == 5
    second.discard()
    assert os.listdir(store.partial) == []
    assert measure_partial(store, DIGEST) == 0


def test_an_empty_one_does_not_stay(store: Store) -> None:
    opened = open_partial(store, DIGEST)
    assert opened is not None
    opened.close()
    assert os.listdir(store.partial) == []


def test_a_complete_one_can_be_kept(store: Store) -> None:
    opened = open_partial(store, DIGEST)
    assert opened is not None
    opened.append(b"wrong")
    opened.restart()
    opened.append(b"whole")
    assert opened.keep(store.blob(DIGEST))
    opened.close()
    assert Path(store.blob(DIGEST)).read_bytes() == b"whole"
    assert os.listdir(store.partial) == []


def test_a_full_disk_is_no_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_partial(store, DIGEST)
    assert opened is not None
    opened.append(b"who")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", fail)
    opened.append(b"le")
    monkeypatch.undo()
    opened.append(b"more")
    assert os.path.getsize(partial_path(store, DIGEST)) == 0
    assert not opened.keep(store.blob(DIGEST))
    assert os.listdir(store.partial) == []


def test_strange_files_are_left_alone(store: Store) -> None:
    os.mkfifo(partial_path(store, DIGEST))
    assert open_partial(store, DIGEST) is None
    os.unlink(partial_path(store, DIGEST))
    os.symlink("/etc/passwd", partial_path(store, DIGEST))
    assert open_partial(store, DIGEST) is None
    os.unlink(partial_path(store, DIGEST))
    os.mkdir(partial_path(store, DIGEST))
    assert open_partial(store, DIGEST) is None


def test_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [compute_digest(str(number).encode()) for number in range(5)]
    for number, digest in enumerate(digests):
        Path(partial_path(store, digest)).write_bytes(bytes(100))
        os.utime(partial_path(store, digest), (1000 * number, 1000 * number))
    held = open_partial(store, digests[0])
    assert held is not None
    monkeypatch.setattr(partial, "MAX_AGE", 2500)
    # The first is being written, the second is wanted, the third is too old.
    sweep_partials(store, [digests[1]], now=5000.0)
    assert [measure_partial(store, digest) for digest in digests] == [100, 100, 0, 100, 100]
    held.close()
    monkeypatch.setattr(partial, "MAX_TOTAL", 150)
    sweep_partials(store, [], now=4500.0)
    assert [measure_partial(store, digest) for digest in digests] == [0, 0, 0, 0, 100]


def test_what_waits_is_told_from_what_comes(store: Store) -> None:
    assert measure_partials(store) == ([], [])
    digests = [compute_digest(str(number).encode()) for number in range(3)]
    for number, digest in enumerate(digests):
        Path(partial_path(store, digest)).write_bytes(bytes(10 * (number + 1)))
    os.symlink("/etc/passwd", f"{store.partial}/sha256-{'0' * 64}")
    held = open_partial(store, digests[1])
    assert held is not None
    busy, waiting = measure_partials(store)
    assert (busy, sorted(waiting)) == ([20], [10, 30])
    # Looking has taken nothing away from a pull that wants to write.
    other = open_partial(store, digests[2])
    assert other is not None
    other.close()
    assert sorted(remove_partials(store)) == [10, 30]
    assert {name[7:] for name in os.listdir(store.partial)} == {digests[1].hex, "0" * 64}
    held.close()
    assert remove_partials(store) == [20]
    assert not is_held(f"{store.partial}/none")


def test_no_store_has_none(tmp_path: Path) -> None:
    directory = str(tmp_path)
    store = Store(Paths(config=directory, data=f"{directory}/none", cache=directory, runtime_root=directory))
    assert measure_partials(store) == ([], [])
    assert remove_partials(store) == []
