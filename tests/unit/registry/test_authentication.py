"""WWW-Authenticate challenges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.registry.authentication import Credentials, parse_challenges


def test_credentials_are_never_shown() -> None:
    credentials = Credentials("user", "secret", "token")
    assert "secret" not in f"{credentials!r}{credentials}"
    assert "token" not in f"{credentials!r}{credentials}"
    assert credentials.basic == "Basic dXNlcjpzZWNyZXQ="


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t",service="s",scope="x:y:pull,push"',
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "x:y:pull,push"})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ('BASIC Realm=x, Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Negotiate", [("negotiate", {})]),
        ('Negotiate, Basic realm="a\\"b"', [("negotiate", {}), ("basic", {"realm": 'a"b'})]),
        ("", []),
        ('="x"', []),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
    ],
)  # fmt: skip
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in parse_challenges(header)] == expected


@given(st.text(alphabet='abAB=", \\\t', max_size=60))
def test_challenges_end(header: str) -> None:
    parse_challenges(header)
