"""Environment files, as docker reads them."""

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.runtime.environment import parse_environment_file


def test_lines_are_taken_as_they_are() -> None:
    text = '\ufeff# comment\n\n  A=1\nB="quoted"\r\nC=a=b # no comment\nHOME\nMISSING\nE=\n'
    assert parse_environment_file(text, "f", {"HOME": "/h"}) == (
        ("A", "1"),
        ("B", '"quoted"'),
        ("C", "a=b # no comment"),
        ("HOME", "/h"),
        ("E", ""),
    )


@pytest.mark.parametrize("line", ["=x", "A B=x", "A =x", "A=\0"])
def test_impossible_names_are_reported_with_their_line(line: str) -> None:
    with pytest.raises(InvalidArgument, match="f:2"):
        parse_environment_file(f"OK=1\n{line}\n", "f", {})
