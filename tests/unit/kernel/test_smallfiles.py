"""Small files: what is there, too large, or cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.kernel.smallfiles import read_small_file


def test_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert read_small_file(str(path), 3) is None
    path.write_bytes(b"abc")
    assert read_small_file(str(path), 3) == b"abc"
    assert read_small_file(str(path / "below"), 3) is None


def test_refuses(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcd")
    with pytest.raises(HostError, match="is longer than the 3 bytes allowed") as caught:
        read_small_file(str(path), 3)
    assert caught.value.where == str(path)
    with pytest.raises(InvalidFormat, match="the signature cannot be read: Is a directory"):
        read_small_file(str(tmp_path), 3, InvalidFormat, what="the signature")
