"""Every method with random arguments: an answer each time, no traceback, nothing leaks, and it answers after."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tests.support.countingdaemon
from tests.support.bus import MANAGER, ROOT, read
from tests.support.busfuzz import Report, daemon_pid, fuzz, measure, open_playground
from tests.support.containers import run, wait_until
from usercontainerd.daemon.logbook import STARTED

SECONDS = 6
FEWEST_CALLS = 120
# asyncio keeps timers that were cancelled until there are a hundred of them.
COMES_AND_GOES = ("asyncio.events.TimerHandle", "_contextvars.Context")


pytestmark = pytest.mark.usefixtures("bus_image")


@contextmanager
def counting(directory: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """The daemon as ``tests/support/countingdaemon.py``, and what has it count."""
    unit = run("systemctl", "--user", "show", "-P", "ExecStart", "usercontainerd").stdout
    program = re.search(r"path=(\S+)", unit)
    assert program is not None
    result = directory / "count.json"
    drop_in = Path(os.environ["XDG_RUNTIME_DIR"]) / "systemd/user/usercontainerd.service.d/counting.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    source = tests.support.countingdaemon.__file__
    drop_in.write_text(
        f"[Service]\nExecStart=\nExecStart=/usr/bin/python3 -I {source} {program[1]} {result}\n"
    )
    run("systemctl", "--user", "stop", "usercontainerd")
    run("systemctl", "--user", "daemon-reload")

    def count() -> dict[str, Any]:
        result.unlink(missing_ok=True)
        os.kill(daemon_pid(), signal.SIGUSR1)
        wait_until(result.exists, "it has counted")
        found: dict[str, Any] = json.loads(result.read_text())
        return found

    try:
        yield count
    finally:
        drop_in.unlink()
        run("systemctl", "--user", "stop", "usercontainerd")
        run("systemctl", "--user", "daemon-reload")


def check_answers(report: Report) -> None:
    assert not report.silent
    assert not report.tracebacks
    assert "org.usercontainer1.Error.InvalidArgument" in report.errors
    assert "org.freedesktop.DBus.Error.InvalidArgs" in report.errors


def test_random_calls(tmp_path: Path) -> None:
    begun = time.time()
    with open_playground() as playground, counting(tmp_path) as count:
        assert read(ROOT, MANAGER, "Version")
        pid = daemon_pid()
        first = ("journalctl", "--user", "-q", "-o", "cat", f"_PID={pid}", f"MESSAGE_ID={STARTED}")
        wait_until(lambda: run(*first).stdout, "it has opened the journal")
        at_rest = count()
        descriptors = measure(pid)[0]

        def settle() -> dict[str, Any]:
            """Back to what it is when nobody has called: nothing that clients have left is kept for them."""
            children = Path(f"/proc/{pid}/task/{pid}/children")
            wait_until(lambda: not children.read_text(), "its children end")
            wait_until(lambda: measure(pid)[0] <= descriptors, "descriptors are closed")
            playground.clean()

            def is_at_rest(found: dict[str, Any]) -> bool:
                kinds = ("jobs.Job", "container.ContainerObject")
                same = all(
                    found["types"].get(kind, 0) <= at_rest["types"].get(kind, 0)
                    for kind in (f"usercontainerd.daemon.{each}" for each in kinds)
                )
                return same and bool(found["tasks"] <= at_rest["tasks"])

            wait_until(lambda: is_at_rest(count()), "its tasks end, and its jobs and containers go")
            return count()

        counts, calls = [], []
        for seed in (1, 2, 3):
            report = asyncio.run(fuzz(SECONDS, seed, playground, fewest_calls=FEWEST_CALLS))
            check_answers(report)
            calls.append(report.calls)
            counts.append(settle())
        # What grows in both of the later rounds grows for ever. There are some forty methods: one in sixty calls.
        # A hundred timers that come and go are some eight hundred blocks.
        held = [{**each["types"], "allocated blocks": each["blocks"] // 100} for each in counts]
        leaked = [
            kind
            for kind in held[2]
            if kind not in COMES_AND_GOES
            and all(
                held[turn].get(kind, 0) - held[turn - 1].get(kind, 0) > max(10, calls[turn] / 60)
                for turn in (1, 2)
            )
        ]
        assert not leaked, {kind: [each.get(kind, 0) for each in held] for kind in leaked}
        assert daemon_pid() == pid
        assert read(ROOT, MANAGER, "Version")
    # Of the daemon and of all that it has run.
    words = ("-u", "usercontainerd", f"--since=@{begun:.6f}")
    journal = run("journalctl", "--user", "-q", "-o", "cat", "--no-pager", *words).stdout
    assert "Version" in journal, "the daemon's words are not there"
    at = journal.find("Traceback")
    assert at < 0, journal[max(at - 200, 0) : at + 3000]
    assert "a task failed" not in journal
