from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.times import (
    format_age,
    format_duration,
    format_elapsed,
    parse_duration,
    parse_moment,
    parse_rfc3339,
)

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (10, 10),
        (0.5, 0.5),
        ("10", 10),
        ("10s", 10),
        ("1min 30s", 90),
        ("1min30s", 90),
        ("2 h", 7200),
        ("500ms", 0.5),
        ("1.5min", 90),
        ("1d 1w", 691200),
        ("1M", 2630016),
        ("1y", 31557600),
        ("100us", 1e-4),
        ("100µs", 1e-4),
        ("1hr 1 hour", 7200),
        ("  5  ", 5),
        ("2days 3 minutes 4sec", 172984),
        ("1 2", 3),
    ],
)
def test_durations(value: str | float, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "s",
        "-1",
        "-1s",
        "1 parsec",
        "1..5s",
        ".",
        "infinity",
        "1min-30s",
        "1,5s",
        "1" * 400,
        "١s",
        "1e3",
        "9" * 90,
        -1,
        -0.1,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
    ],
)
def test_no_durations(value: str | float) -> None:
    with pytest.raises(InvalidArgument):
        parse_duration(value)


@given(st.text(max_size=12))
def test_any_text(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except InvalidArgument as error:
        assert str(error)


@given(st.integers(0, 10**12))
def test_formatted_durations_can_be_read(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1min 30s"), (0.25, "250ms"), (90061, "1d 1h 1min 1s"), (59.9999, "1min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


# docker's units.HumanDuration
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert format_elapsed(seconds) == text
    assert format_age(seconds) == f"{text} ago"


def test_a_clock_that_went_back() -> None:
    assert format_age(-5) == "Less than a second ago"


def test_times_of_images() -> None:
    assert parse_rfc3339("2023-11-14T22:13:20Z") == NOW
    assert parse_rfc3339("2023-11-14T22:13:20.123456789Z") == NOW
    assert parse_rfc3339("2023-11-14T23:13:20+01:00") == NOW
    assert parse_rfc3339("0001-01-01T00:00:00Z") < 0
    for broken in ("", "yesterday", "2023-11-14", "2023-11-14T25:99", "T", "\x1b"):
        assert parse_rfc3339(broken) == 0.0


def test_moments() -> None:
    assert parse_moment("2023-11-14T22:13:20Z", 0) == NOW
    assert parse_moment("1700000000", 0) == NOW
    assert parse_moment("1700000000.5", 0) == NOW + 0.5
    assert parse_moment("1h30m", NOW) == NOW - 5400
    assert parse_moment("2023-11-14", 0) > 0
    for broken in ("", "x", "-1h", "1 fortnight"):
        with pytest.raises(InvalidArgument, match="no time"):
            parse_moment(broken, NOW)
