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

from tests.support.bus import CONTAINER, MANAGER, NAME, ROOT, busctl, call, path_of, read
from tests.support.busfuzz import daemon_pid
from tests.support.containers import BUSYBOX, SLEEPER, Container, run, wait_until

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
