"""What hostile images are after: a directory of the user's with a secret, which stands for the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.containers import run

SECRET = "the host's own secret"


@dataclass
class Victim:
    """What the image is after."""

    path: Path

    @property
    def up(self) -> str:
        return "../../../../../../../../.." + str(self.path)

    def describe(self) -> list[tuple[str, int, int, str]]:
        found = []
        for path in sorted((self.path, *self.path.rglob("*"))):
            status = path.lstat()
            content = path.read_text() if path.is_file() else ""
            found.append((str(path), status.st_mode, status.st_mtime_ns, content))
        return found


def make_victim() -> Victim:
    path = Path.home() / f"victim-{os.urandom(3).hex()}"
    path.mkdir()
    (path / "secret").write_text(SECRET)
    (path / "inner").mkdir()
    return Victim(path)


@pytest.fixture
def victim() -> Iterator[Victim]:
    """It must be as it was, whatever the test did."""
    one = make_victim()
    before = one.describe()
    yield one
    assert one.describe() == before
    run("rm", "-r", str(one.path))
