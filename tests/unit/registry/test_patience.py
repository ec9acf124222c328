"""How long is waited: pure, nothing sleeps here."""

from __future__ import annotations

import pytest

from usercontainerd.registry.patience import MAX_RETRY_AFTER, Patience, parse_retry_after

NOW = 1445412000.0  # Wed, 21 Oct 2015 07:20:00 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 480.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


def test_waits_double_with_jitter_up_to_a_limit() -> None:
    patience = Patience(tries=8, first=1.0, longest=10.0)
    for attempt, most in enumerate([1, 2, 4, 8, 10, 10, 10]):
        delays = [patience.plan_delay(attempt) for _ in range(50)]
        assert all(delay is not None and most / 2 <= delay <= most for delay in delays)
        assert len(set(delays)) > 1
    assert patience.plan_delay(7) is None


def test_what_the_registry_asks_for_is_the_least() -> None:
    patience = Patience(first=0.1)
    assert patience.plan_delay(0, 5.0) == 5.0
    assert (patience.plan_delay(0, 0.0) or 0) >= 0.05
    assert patience.plan_delay(0, MAX_RETRY_AFTER + 1) is None
