"""Every method with random arguments: an answer each time, no traceback, nothing leaks, and it answers after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.support.bus import MANAGER, ROOT, read
from tests.support.busfuzz import daemon_pid, fuzz, measure
from tests.support.containers import BUSYBOX, Container, run, wait_until

SECONDS = 12


@pytest.fixture(scope="module", autouse=True)
def image() -> Iterator[None]:
    run("usercontainer", "pull", "-q", BUSYBOX)
    yield
    run("systemctl", "--user", "stop", "usercontainerd")


def test_random_calls(container: Callable[..., Container]) -> None:
    container(
        f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n', name="app"
    )
    assert read(ROOT, MANAGER, "Version")
    report = asyncio.run(fuzz(SECONDS, seed=1))
    assert report.calls > 200
    assert not report.silent
    assert not report.tracebacks
    assert "org.usercontainer1.Error.InvalidArgument" in report.errors
    assert "org.freedesktop.DBus.Error.InvalidArgs" in report.errors
    pid = daemon_pid()
    # What it still has is what clients have left running: it comes down to a handful.
    wait_until(lambda: measure(pid)[0] < 40, "descriptors are closed", timeout=30)
    assert read(ROOT, MANAGER, "Version")
    journal = run("journalctl", "--user", "-u", "usercontainerd", "-o", "cat", "--no-pager").stdout
    assert "Traceback" not in journal, journal[-3000:]
    assert "a task failed" not in journal
