"""A home directory of the test's own, with what registries are configured by, for our programs and for Podman."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.containers import wait_until

_TRIED = re.compile(r"Trying to pull (\S+?)\.\.\.")
_ASKED = re.compile(r'Trying to access \\"(\S+?)\\"')
_PLACES = """
import os, sys
from usercontainerd.base.errors import UsercontainerError
from usercontainerd.cli.call import Call
from usercontainerd.cli.options import Options
from usercontainerd.engine.images.local import read_registries
from usercontainerd.oci.reference import parse_reference

configuration = read_registries(Call("pull", Options(), dict(os.environ)).context())
for name in sys.argv[1:]:
    try:
        print(*(endpoint.reference for endpoint in configuration.locate_all(parse_reference(name))))
    except UsercontainerError:
        print()
"""
_MEANING = """
import os, sys
from usercontainerd.base.errors import UsercontainerError
from usercontainerd.cli.call import Call
from usercontainerd.cli.options import Options
from usercontainerd.engine.registries.endpoints import choose_meaning
from usercontainerd.engine.images.local import read_registries
from usercontainerd.oci.reference import parse_reference

configuration = read_registries(Call("pull", Options(), dict(os.environ)).context())
try:
    meaning, _ = choose_meaning(configuration, parse_reference(sys.argv[1]).with_default_tag())
    print(*meaning.candidates)
except UsercontainerError:
    pass
"""


class Keyboard:
    """The other end of a terminal at which a program runs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._seen = bytearray()

    def wait_for(self, text: str) -> str:
        """Wait until the program has written ``text``; return all that it has written so far."""

        def has_come() -> bool:
            self._seen.extend(os.read(self._fd, 4096))
            return text.encode() in self._seen

        wait_until(has_come, repr(text))
        return self._seen.decode("utf-8", "replace")

    def answer(self, question: str, line: str) -> str:
        """Type a line once the program has asked."""
        seen = self.wait_for(question)
        os.write(self._fd, f"{line}\n".encode())
        return seen


class Home:
    """``environment`` is for programs that live there; ``run`` runs one and returns what it printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / ".config"
        self.conf = self.config / "containers" / "registries.conf"
        self.drop_ins = self.config / "containers" / "registries.conf.d"
        self.drop_ins.mkdir(parents=True)
        self.runtime = directory / "run"
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "HOME": str(directory),
            "XDG_CONFIG_HOME": str(self.config),
            "XDG_DATA_HOME": str(directory / "data"),
            "XDG_CACHE_HOME": str(directory / ".cache"),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def configure(self, text: str) -> None:
        """Write the registries.conf."""
        self.conf.write_text(text)

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program with ``text`` as its input."""
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=self.environment, input=text
        )

    @contextmanager
    def type_at(self, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], Keyboard]]:
        """Run a program at a terminal."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=self.environment)
        os.close(theirs)
        try:
            yield process, Keyboard(ours)
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    def run_ours(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run our command."""
        return self.run("usercontainer", *words, text=text)

    def run_podman(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run Podman with a store of this home."""
        store = [f"--root={self.directory}/podman", f"--runroot={self.directory}/podman-run"]
        return self.run("podman", *store, *words, text=text)

    def ask_podman(self, name: str) -> list[str]:
        """Full names that Podman tries for ``name``, none if it refuses."""
        return _TRIED.findall(self.run_podman("pull", "--retry=0", name).stderr)

    def ask_us(self, name: str) -> list[str]:
        """The same of ours, by its own code without a terminal."""
        result = self.run(sys.executable, "-c", _MEANING, name)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    def ask_podman_places(self, name: str) -> list[str]:
        """Where Podman tries to get ``name``, in order."""
        return _ASKED.findall(self.run_podman("--log-level=debug", "pull", "--retry=0", name).stderr)

    def ask_our_places(self, *names: str) -> list[list[str]]:
        """The same of ours, of several names."""
        result = self.run(sys.executable, "-c", _PLACES, *names)
        assert result.returncode == 0, result.stderr
        return [line.split() for line in result.stdout.split("\n")[: len(names)]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of the test's own."""
    return Home(tmp_path)
