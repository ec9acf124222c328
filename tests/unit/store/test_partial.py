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
from usercontainerd.store.partial import measure_partial, open_partial, partial_path, sweep_partials

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
