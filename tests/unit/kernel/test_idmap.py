"""ID maps and the files that they come from."""

from pathlib import Path

import pytest

from usercontainerd.kernel.idmap import (
    MAX_EXTENTS,
    Extent,
    IdMap,
    parse_id_map,
    parse_subordinate_ids,
    plan_id_map,
    plan_single_map,
    read_id_map,
)


def test_root_is_the_user_and_the_ranges_follow_in_order() -> None:
    id_map = plan_id_map(1000, 1001, [(100000, 65536), (400000, 10)], [(200000, 5)])
    assert id_map.uids == (Extent(0, 1000, 1), Extent(1, 100000, 65536), Extent(65537, 400000, 10))
    assert id_map.gids == (Extent(0, 1001, 1), Extent(1, 200000, 5))
    assert not id_map.single


def test_there_are_at_most_as_many_extents_as_the_kernel_takes() -> None:
    id_map = plan_id_map(1000, 1000, [(n * 10, 1) for n in range(1, 1000)], [])
    assert len(id_map.uids) == MAX_EXTENTS


@pytest.mark.parametrize("id_map", [plan_single_map(5, 6), plan_id_map(1, 2, [(10, 20)], [(30, 40)])])
def test_text_round_trip(id_map: IdMap) -> None:
    assert parse_id_map(id_map.render()) == id_map


def test_subid_files() -> None:
    text = "# x\nalice:100000:65536\nbob:1:1\n1000:300000:10\nalice:x:1\nalice\n\n"
    assert parse_subordinate_ids(text, 1000, "alice") == [(100000, 65536), (300000, 10)]
    assert parse_subordinate_ids(text, 5, "carol") == []


def test_without_ranges_only_the_own_id_is_mapped(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert read_id_map(1000, 1000, "nobody-here", subuid=missing, subgid=missing) == plan_single_map(
        1000, 1000
    )
