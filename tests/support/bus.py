"""Calling the daemon as a shell would: busctl(1), with its JSON read."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from tests.support.containers import BUSYBOX, Container, run, wait_until

NAME = "org.usercontainer1"
ROOT = "/org/usercontainer1"
MANAGER = f"{NAME}.Manager"
CONTAINER = f"{NAME}.Container"
IMAGE = f"{NAME}.Image"
JOB = f"{NAME}.Job"


def busctl(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run busctl on the user's bus."""
    command = ["busctl", "--user", "--json=short", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def call(path: str, interface: str, member: str, *words: str, timeout: float = 60) -> list[Any]:
    """Call a method and return its results; an error fails the test."""
    done = busctl("call", NAME, path, interface, member, *words, timeout=timeout)
    if done.returncode != 0:
        pytest.fail(f"{member}: {done.stderr}")
    text = done.stdout.strip()
    return list(json.loads(text)["data"]) if text else []


def call_manager(member: str, *words: str, timeout: float = 60) -> list[Any]:
    """The same of the root object."""
    return call(ROOT, MANAGER, member, *words, timeout=timeout)


def read(path: str, interface: str, name: str) -> Any:
    """A property."""
    done = busctl("get-property", NAME, path, interface, name)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]


def wait_for(path: str, interface: str, name: str, wanted: Any, timeout: float = 60) -> None:
    """Wait until a property has a value."""
    end = time.monotonic() + timeout
    while (value := read(path, interface, name)) != wanted:
        if time.monotonic() > end:
            pytest.fail(f"{path} {name} is {value!r}, not {wanted!r}")
        time.sleep(0.02)


def finish_job(path: str, timeout: float = 60) -> dict[str, Any]:
    """Wait for a job's end; return its properties."""
    end = time.monotonic() + timeout
    while read(path, JOB, "State") == "running":
        if time.monotonic() > end:
            pytest.fail(f"{path} does not end")
        time.sleep(0.05)
    names = ("State", "ErrorName", "Message", "Progress", "BytesDone", "BytesTotal")
    found = {name: read(path, JOB, name) for name in names}
    found["Result"] = {key: value["data"] for key, value in read(path, JOB, "Result").items()}
    return found


def path_of(one: Container) -> str:
    """The object of a container."""
    return str(call_manager("GetContainer", "sa{sv}", one.name, "0")[0])


@contextmanager
def monitor() -> Iterator[list[dict[str, Any]]]:
    """The daemon's messages from now on, as busctl sees them: the list grows as long as the block lasts."""
    messages: list[dict[str, Any]] = []

    def take(output: IO[str]) -> None:
        for line in output:
            messages.append(json.loads(line))

    command = ["busctl", "--user", "--json=short", "monitor", NAME]
    with subprocess.Popen(command, stdout=-1, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=take, args=(process.stdout,))
        reader.start()
        try:
            wait_until(lambda: read(ROOT, MANAGER, "Version") and messages, "a call is seen")
            yield messages
        finally:
            process.terminate()
            reader.join()


@pytest.fixture(scope="module")
def bus_image() -> Iterator[None]:
    """Busybox is there; the daemon is not any more, in the end."""
    run("usercontainer", "pull", "-q", BUSYBOX)
    yield
    run("systemctl", "--user", "stop", "usercontainerd")


@pytest.fixture(scope="module")
def no_logins() -> Iterator[None]:
    """The logins that tests have made are gone in the end."""
    yield
    run("usercontainer", "logout", "--all", check=False)
