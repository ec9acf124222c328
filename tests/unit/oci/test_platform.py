"""Which platform of an index runs here."""

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.oci.platform import (
    Platform,
    choose_platform,
    normalize_platform,
    parse_platform,
    plan_host_platform,
)


def platforms(*texts: str) -> list[Platform]:
    return [Platform(*text.split("/")) for text in texts]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("s390x", "linux/s390x"),
        ("strange", "linux/strange"),
    ],
)
def test_host(machine: str, expected: str) -> None:
    assert str(plan_host_platform(machine)) == expected


@pytest.mark.parametrize(
    ("wanted", "offered", "index"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["windows/amd64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64/v1"], 1),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v3"], 1),
        ("linux/amd64/v3", ["linux/amd64"], 0),
        ("linux/amd64", ["linux/x86_64"], 0),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], 1),
        ("linux/arm/v7", ["linux/arm"], 0),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/arm/v5", ["linux/arm/v7"], None),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", [], None),
    ],
)
def test_choice(wanted: str, offered: list[str], index: int | None) -> None:
    assert choose_platform(Platform(*wanted.split("/")), platforms(*offered)) == index


def test_offers_without_a_platform_are_skipped() -> None:
    assert choose_platform(Platform("linux", "amd64"), [None, Platform("linux", "amd64")]) == 1


def test_parsing() -> None:
    assert parse_platform("arm64") == Platform("linux", "arm64")
    assert parse_platform("linux/arm/7") == Platform("linux", "arm", "v7")
    assert parse_platform("Linux/X86_64") == Platform("linux", "amd64")
    assert normalize_platform(Platform("linux", "arm64", "v9")) == Platform("linux", "arm64", "v9")
    for text in ("", "a/b/c/d", "linux/", "linux/a b", "linux/../x"):
        with pytest.raises(InvalidArgument, match="not a platform"):
            parse_platform(text)
