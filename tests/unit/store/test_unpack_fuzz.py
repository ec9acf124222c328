"""Archives made at random and damaged at random: errors of ours or none, and exact archives out again."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from tests.support.tarfuzz import damage_archive, make_archive
from tests.unit.store.test_recipe import unpack_and_rebuild
from tests.unit.store.test_tar import read
from usercontainerd.base.errors import InvalidFormat, UsercontainerError

_SEED = st.integers(0, 1 << 40)


def check(data: bytes) -> bool:
    """Tell whether it was taken; what was taken must come out as it was."""
    try:
        rebuilt = unpack_and_rebuild(data)
    except UsercontainerError as error:
        assert str(error)
        return False
    assert rebuilt == data
    return True


@given(_SEED)
def test_odd_archives(seed: int) -> None:
    check(make_archive(seed))


@given(_SEED, _SEED)
def test_damaged_archives(seed: int, damage: int) -> None:
    check(damage_archive(make_archive(seed), damage))


@given(_SEED)
def test_tarfile_agrees(seed: int) -> None:
    data = make_archive(seed)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = [
            (
                info.name.strip("/"),
                info.size if info.isreg() else 0,
                info.type,
                info.mode,
                info.uid,
                int(info.mtime),
            )
            for info in archive.getmembers()
        ]
    try:
        entries = read(data)
    except InvalidFormat as error:
        assert "entry has no name" in str(error) or "no number" in str(error)
        return
    ours = [
        (
            entry.name.decode("utf-8", "surrogateescape").strip("/"),
            len(content), entry.type, entry.mode, entry.uid, int(entry.mtime / 10**9),
        )
        for entry, content in entries
    ]  # fmt: skip
    assert [entry for entry in ours if entry[2] != tarfile.DIRTYPE] == [
        entry for entry in theirs if entry[2] != tarfile.DIRTYPE
    ] or any(entry[2] == tarfile.REGTYPE and not entry[0] for entry in theirs)
    assert len(ours) == len(theirs)


def test_most_are_not_refused() -> None:
    """Else all of this would show nothing."""
    assert sum(check(make_archive(seed)) for seed in range(60)) > 15
    assert sum(check(damage_archive(make_archive(seed), seed)) for seed in range(100)) > 10
