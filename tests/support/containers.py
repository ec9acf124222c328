"""What the tests in a machine share: a container with a definition of its own, started through systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUSYBOX = "localhost:5000/busybox:latest"
SLEEPER = f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'


def run(*command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it printed; on failure the test shows it."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if check and result.returncode != 0:
        pytest.fail(f"{' '.join(command)}: status {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Poll for at most ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout} s in vain: {what}")
        time.sleep(0.02)


def read_journal(*matches: str, seconds: float = 30) -> list[dict[str, Any]]:
    """Entries of this user's journal, as soon as there are any: the daemon's first ones come a moment late."""
    command = ("journalctl", "--user", "--no-pager", "--all", "-o", "json", *matches)
    end = time.monotonic() + seconds
    while True:
        run("journalctl", "--user", "--sync", check=False)
        text = run(*command).stdout
        if text or time.monotonic() > end:
            return [json.loads(line) for line in text.splitlines()]
        time.sleep(0.05)


def fetch(port: int) -> str:
    """The page, once it is served: a unit is active as soon as its command runs."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Container:
    """One definition of alice's and the unit that the generator makes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = f"container@{name}.service"
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.path = Path(config) / "usercontainerd" / "containers" / f"{name}.toml"

    @property
    def _drop_in(self) -> Path:
        return Path(os.environ["XDG_RUNTIME_DIR"]) / f"systemd/user/{self.unit}.d/before-254.conf"

    def define(self, text: str) -> None:
        self.write(text)
        run("systemctl", "--user", "daemon-reload")

    def write(self, text: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text, encoding="utf-8")

    def start(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = run("systemctl", "--user", "start", self.unit, check=False, timeout=120)
        if check and result.returncode != 0:
            pytest.fail(f"{self.unit} did not start: {result.stderr}\n{self.journal()}")
        return result

    def forget_subgroup(self) -> None:
        """Have systemd start its processes in the unit's own cgroup, as before systemd 254; call before the start."""
        self._drop_in.parent.mkdir(parents=True)
        self._drop_in.write_text("[Service]\nDelegateSubgroup=\n")
        run("systemctl", "--user", "daemon-reload")

    def stop(self) -> None:
        run("systemctl", "--user", "stop", self.unit)

    def show(self, name: str) -> str:
        return run("systemctl", "--user", "show", "--value", "-p", name, self.unit).stdout.strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    @property
    def has_ended(self) -> bool:
        return self.show("ActiveState") in ("inactive", "failed")

    @property
    def cgroup(self) -> Path:
        return Path("/sys/fs/cgroup" + self.show("ControlGroup"))

    def journal(self) -> str:
        run("journalctl", "--user", "--sync", check=False)
        return run("journalctl", "--user", "-u", self.unit, "-o", "cat", "--no-pager", check=False).stdout

    def finish(self, *, timeout: float = 60) -> str:
        """Wait until a command that ends by itself has ended, and return its journal."""
        wait_until(lambda: self.has_ended, f"{self.unit} ends", timeout)
        return self.journal()

    def remove(self) -> None:
        # A shell does not end at SIGTERM: nobody waits for its stop timeout here. Killed alone, it might be restarted.
        run("systemctl", "--user", "stop", "--no-block", self.unit, check=False)
        run("systemctl", "--user", "kill", "--kill-whom=main", "--signal=KILL", self.unit, check=False)
        run("systemctl", "--user", "stop", self.unit, check=False)
        run("systemctl", "--user", "reset-failed", self.unit, check=False)
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self._drop_in.parent, ignore_errors=True)
        # That of a check which only the image knows is made at the start.
        (self._drop_in.parents[1] / f"container-health@{self.name}.timer").unlink(missing_ok=True)


def run_all(definitions: Mapping[str, str], *, at_once: int = 8) -> dict[str, str]:
    """Run containers of many definitions to their ends; how each ended: ``success``, or its status text."""
    made = {key: Container(f"{key}-{os.urandom(2).hex()}") for key in definitions}
    for key, one in made.items():
        one.write(definitions[key])
    run("systemctl", "--user", "daemon-reload")
    found: dict[str, str] = {}
    pending = list(made)
    while pending:
        some, pending = pending[:at_once], pending[at_once:]
        run("systemctl", "--user", "start", *(made[key].unit for key in some), check=False, timeout=120)
        for key in some:
            one = made[key]
            wait_until(lambda one=one: one.has_ended, f"{one.unit} ends")  # type: ignore[misc]
            found[key] = "success" if one.show("Result") == "success" else one.show("StatusText")
    for one in made.values():
        one.path.unlink()
    run("systemctl", "--user", "reset-failed", check=False)
    return found


@contextmanager
def defined(name: str, text: str) -> Iterator[Container]:
    """A container for as long as the block lasts, for fixtures that several tests share."""
    one = Container(f"{name}-{os.urandom(2).hex()}")
    try:
        one.define(text)
        yield one
    finally:
        one.remove()


@pytest.fixture
def container(request: pytest.FixtureRequest) -> Iterator[Callable[..., Container]]:
    """Make containers: ``container('image = …')``; all are gone after the test."""
    made: list[Container] = []
    stem = request.node.name.removeprefix("test_").replace("_", "-").split("[")[0][:40]

    def make(text: str, name: str | None = None) -> Container:
        one = Container(name or f"{stem}-{len(made)}-{os.urandom(2).hex()}")
        made.append(one)
        one.define(text)
        return one

    yield make
    for one in made:
        one.remove()  # systemd forgets the unit at the next reload
