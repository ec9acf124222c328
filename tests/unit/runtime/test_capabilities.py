"""Capabilities, as docker and Podman combine --cap-add and --cap-drop."""

import pytest

from usercontainerd.runtime.capabilities import (
    ALL_CAPABILITIES,
    DEFAULT_CAPABILITIES,
    plan_bounding_set,
    plan_capabilities,
)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(DEFAULT_CAPABILITIES)),
        (("CAP_NET_RAW",), (), {*DEFAULT_CAPABILITIES, "CAP_NET_RAW"}),
        ((), ("CAP_CHOWN",), set(DEFAULT_CAPABILITIES) - {"CAP_CHOWN"}),
        ((), ("ALL",), set()),
        (("CAP_CHOWN",), ("ALL",), {"CAP_CHOWN"}),
        (("ALL",), (), set(ALL_CAPABILITIES)),
        (("ALL",), ("CAP_SYS_ADMIN",), set(ALL_CAPABILITIES) - {"CAP_SYS_ADMIN"}),
        (("CAP_CHOWN",), ("CAP_CHOWN",), set(DEFAULT_CAPABILITIES) - {"CAP_CHOWN"}),
    ],
)
def test_bounding_set(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    assert set(plan_bounding_set(add, drop)) == expected


def test_root_has_all_of_its_bounding_set_and_nothing_inheritable() -> None:
    sets = plan_capabilities((), (), root=True)
    assert (
        set(sets["effective"]) == set(sets["permitted"]) == set(sets["bounding"]) == set(DEFAULT_CAPABILITIES)
    )
    assert sets["inheritable"] == sets["ambient"] == []


def test_another_user_has_only_what_was_added() -> None:
    sets = plan_capabilities(("CAP_NET_RAW",), (), root=False)
    assert sets["effective"] == sets["permitted"] == sets["ambient"] == ["CAP_NET_RAW"]
    assert set(sets["bounding"]) == {*DEFAULT_CAPABILITIES, "CAP_NET_RAW"}


def test_there_are_41_capabilities_and_no_duplicates() -> None:
    assert len(ALL_CAPABILITIES) == len(set(ALL_CAPABILITIES)) == 41
