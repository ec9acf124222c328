"""The daemon is killed at random moments while containers start and stop and images come: nobody is harmed.

USERCONTAINER_KILLS says how often; a hundred times takes a few minutes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.bus import (
    CONTAINER,
    JOB,
    MANAGER,
    NAME,
    ROOT,
    busctl,
    call,
    call_manager,
    finish_job,
    path_of,
    read,
)
from tests.support.busfuzz import daemon_pid
from tests.support.containers import BUSYBOX, SLEEPER, Container, run, wait_until
from tests.support.fakeregistry import Handler, file
from tests.support.images import ImageMaker

Make = Callable[..., Container]
STAGES = Path.home() / ".local/share/usercontainerd/tmp"
KILLS = int(os.environ.get("USERCONTAINER_KILLS", "8"))
WEB = "localhost:5000/web:latest"


def test_killed_at_random_moments(container: Make) -> None:
    run("usercontainer", "pull", "-q", BUSYBOX)
    rnd = random.Random(5)
    steady, moving = container(SLEEPER), container(SLEEPER)
    steady.start()
    steady_pid = steady.pid
    monitor = subprocess.Popen(
        [
            "busctl",
            "--user",
            "monitor",
            "--match",
            "type='signal',member='NameOwnerChanged',arg0='org.usercontainer1'",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(KILLS):
        assert read(ROOT, MANAGER, "Version")
        pid = daemon_pid()
        run("usercontainer", "rmi", "-f", WEB, check=False)
        # Calls whose answers nobody may get any more.
        words = ["busctl", "--user", "call", NAME]
        callers = [
            subprocess.Popen([*words, path, interface, member, *arguments], stdout=-3, stderr=-3)
            for path, interface, member, *arguments in (
                (path_of(moving), CONTAINER, rnd.choice(["Start", "Stop", "Restart"]), "a{sv}", "0"),
                (ROOT, MANAGER, "Pull", "sa{sv}", WEB, "0"),
            )
        ]
        time.sleep(rnd.random() * 0.6)
        os.kill(pid, signal.SIGKILL)
        for each in callers:
            each.wait(60)
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "it is dead")  # type: ignore[misc]
        assert steady.pid == steady_pid
        # The same truth after: what systemd says.
        wait_until(lambda: moving.show("ActiveState") in ("active", "inactive", "failed"), "the unit settles")
        state = read(path_of(moving), CONTAINER, "State")
        assert (state == "running") == (moving.show("ActiveState") == "active"), state
        assert read(path_of(steady), CONTAINER, "MainPID") == steady_pid
    monitor.terminate()
    out, _ = monitor.communicate()
    assert out.count("NameOwnerChanged") >= KILLS
    wait_until(
        lambda: busctl("call", NAME, ROOT, MANAGER, "ListImages", "a{sv}", "0").returncode == 0, "it answers"
    )
    # Jobs that lost their daemon have ended, and what they left half-done is swept up by the next daemon.
    wait_until(lambda: run("pgrep", "-fc", '"operation"', check=False).stdout.strip() == "0", "jobs are gone")
    wait_until(lambda: not list(STAGES.glob("*")), "nothing is left half-done")
    done = run("usercontainer", "system", "check", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run("usercontainer", "pull", "-q", WEB)
    call(path_of(moving), CONTAINER, "Start", "a{sv}", "0")
    assert moving.show("ActiveState") == "active"


def test_a_pull_goes_on_where_it_was(images: ImageMaker) -> None:
    """Its job is gone with the daemon; the same call to the next one fetches only what is not here yet."""
    name = images.add("resumed", file("large", os.urandom(3_000_000)))
    registry = images.registry
    digest, data = max(registry.blobs.items(), key=lambda item: len(item[1]))
    blob = f"/v2/resumed/blobs/{digest}"

    def send_half(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        while registry.rules and not registry.stopped.wait(0.05):
            pass

    registry.rules[blob] = send_half
    (job,) = call_manager("Pull", "sa{sv}", name, "0")
    part = STAGES.parent / "partial" / digest.replace(":", "-")
    wait_until(lambda: part.exists() and part.stat().st_size >= len(data) // 4, "a part of it is here")
    assert read(job, JOB, "State") == "running"
    os.kill(daemon_pid(), signal.SIGKILL)
    wait_until(lambda: run("pgrep", "-fc", '"operation"', check=False).stdout.strip() == "0", "jobs are gone")
    registry.rules.clear()
    del registry.seen[:]
    (again,) = call_manager("Pull", "sa{sv}", name, "0")
    assert again != job
    assert finish_job(again)["State"] == "done"
    (headers,) = [headers for path, headers in registry.seen if path == blob]
    assert int(headers["range"].removeprefix("bytes=").removesuffix("-")) >= len(data) // 4
    run("usercontainer", "rmi", name)
