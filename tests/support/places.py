"""A store of a test's own, used through the command."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.local import empty_trash, open_images
from usercontainerd.store.images import ImageStore


class Place:
    """The user's own store, or with ``directory`` (as XDG_DATA_HOME) another."""

    def __init__(self, directory: Path | None = None) -> None:
        self.environment = {**os.environ, **({"XDG_DATA_HOME": str(directory)} if directory else {})}
        self.paths = Paths.from_environment(self.environment, os.getuid())
        self.root = Path(self.paths.data)

    @property
    def context(self) -> Context:
        return build_context(self.environment, find_programs(), os.getuid(), os.getgid())

    @property
    def images(self) -> ImageStore:
        return open_images(self.context)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a verb in a process group of its own."""
        return subprocess.Popen(
            ["usercontainer", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["usercontainer", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in result.stderr, result.stderr
        assert not check or result.returncode == 0, (words, result.stdout, result.stderr)
        return result

    def findings(self, *words: str, expected: int) -> list[str]:
        result = self.run("system", "check", "--format", "json", *words, check=False)
        assert result.returncode == expected, (result.stdout, result.stderr)
        return [finding["kind"] for finding in json.loads(result.stdout)]


@pytest.fixture
def store_place(tmp_path: Path) -> Iterator[Place]:
    """A store of the test's own."""
    one = Place(tmp_path / "data")
    yield one
    if one.root.exists():
        # What belongs to subordinate IDs pytest could not delete.
        os.rename(one.root / "layers", one.root / "trash" / "layers")
        empty_trash(one.context)
