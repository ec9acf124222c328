"""Names of signals."""

from __future__ import annotations

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.containers.killing import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9),
        ("sigterm", 15),
        ("10", 10),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("SIGPOLL", 29),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "-9", "65", "FOO", "RTMIN+31", "TERM;"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidArgument, match="there is no signal"):
        parse_signal(text)
