from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.sizes import MAX_SIZE, format_size, parse_size, render_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("1b", 1),
        ("1B", 1),
        ("32M", 32 * 2**20),
        ("32m", 2**25),
        ("32MB", 2**25),
        ("32MiB", 2**25),
        ("1.5GiB", 3 * 2**29),
        ("1.5g", 3 * 2**29),
        ("512kb", 2**19),
        (" 2 T ", 2**41),
        ("1P", 2**50),
        ("0.1k", 102),
        ("8191P", 8191 * 2**50),
        ("1.", 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "+1",
        "1X",
        "1e3",
        "1.5.5G",
        ".5G",
        ".",
        "1 2",
        "0x10",
        "١M",
        "1_0",
        "inf",
        "9" * 21,
        "1" * 5000,
        "9000P",
        "1Mi B",
        "1iB",
        "%",
    ],
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_size(text)


@pytest.mark.parametrize("size", [-1, 2**63])
def test_impossible_numbers(size: int) -> None:
    with pytest.raises(InvalidArgument):
        parse_size(size)


@given(st.integers(0, MAX_SIZE))
def test_rendering_loses_nothing(size: int) -> None:
    assert parse_size(render_size(size)) == size
    assert parse_size(size) == size


@given(st.text(max_size=12))
def test_any_text(text: str) -> None:
    try:
        assert 0 <= parse_size(text) <= MAX_SIZE
    except InvalidArgument as error:
        assert str(error)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (4_260_000, "4.26 MB"),
        (420_000_000, "420 MB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (999_999, "1 MB"),
        (10**9, "1 GB"),
        (10**21, "1e+03 EB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


def test_sizes_as_docker_shows_usage() -> None:
    assert format_size(2_181_120, digits=4, gap="") == "2.181MB"
    assert format_size(999_960, digits=4, gap="") == "1MB"
    assert format_size(0, digits=4, gap="") == "0B"


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_that_python_does_not_print(sign: int) -> None:
    with pytest.raises(InvalidArgument):
        parse_size(sign * 16**5000)
