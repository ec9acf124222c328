"""``notify = "container"``: the application itself says READY, and can say nothing that harms others."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.containers import BUSYBOX, Container, run, wait_until
from tests.support.probes import list_mounts

Make = Callable[..., Container]

NOTIFY = """
import os, socket, sys, time
def say(text, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(s, [text.encode()], list(fds)) if fds else s.send(text.encode())
"""


def define(script: str, output: Path, more: str = "") -> str:
    command = json.dumps(["/usr/bin/python3", "-ISBc", NOTIFY + script])
    mounts = json.dumps(list_mounts(output))
    return (
        f'image = "{BUSYBOX}"\ncommand = {command}\nmounts = {mounts}\nnetwork = "none"\nstop_timeout = 0\n'
        f'notify = "container"\n{more}'
    )


def start_without_waiting(one: Container) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["systemctl", "--user", "start", one.unit])


def test_ready_comes_from_within(container: Make, tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = (
        "open('/out/up', 'w').close()\n"
        "while not os.path.exists('/out/go'): time.sleep(0.02)\n"
        "say('READY=1\\nSTATUS=The application is ready')\ntime.sleep(1000)\n"
    )
    one = container(define(script, output))
    starting = start_without_waiting(one)
    wait_until((output / "up").exists, "the application runs")
    time.sleep(0.3)
    assert one.show("ActiveState") == "activating"
    assert one.show("StatusText") == "Started; waiting for the application"
    assert Path(f"/proc/{one.pid}/uid_map").read_text().split()[:3] == ["0", str(os.getuid()), "1"]
    (output / "go").touch()
    assert starting.wait(60) == 0
    assert one.show("ActiveState") == "active"
    assert one.show("StatusText") == "The application is ready"


def test_application_that_never_is_ready_times_out(container: Make, tmp_path: Path) -> None:
    one = container(define("time.sleep(1000)\n", tmp_path / "out", "[service]\nTimeoutStartSec = 2\n"))
    assert one.start(check=False).returncode != 0
    assert one.show("Result") == "timeout"


def test_application_that_ends_before_it_is_ready(container: Make, tmp_path: Path) -> None:
    one = container(define("sys.exit(9)\n", tmp_path / "out"))
    assert one.start(check=False).returncode != 0
    assert one.show("ExecMainStatus") == "9"


def test_messages_reach_the_own_unit_only(container: Make, tmp_path: Path) -> None:
    """No foreign main process, no descriptors kept, nothing said for another unit; READY still counts."""
    output = tmp_path / "out"
    other = container(
        f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'
    )
    other.start()
    pids = [
        os.getpid(),
        int(run("systemctl", "--user", "show", "--value", "-p", "MainPID", "dbus.service").stdout),
    ]
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        script = (
            f"for pid in {[*pids, victim.pid, other.pid, 1]}: say(f'MAINPID={{pid}}')\n"
            "say('FDSTORE=1\\nFDNAME=evil', 0)\n"
            f"say('X_USERCONTAINERD_UNIT={other.unit}\\nSTATUS=evil\\nERRNO=5')\n"
            "say('STATUS=\\x1b[2J evil \\xff\\nREADY=1')\nopen('/out/up', 'w').close()\n"
            "while not os.path.exists('/out/stop'): time.sleep(0.02)\n"
            f"say('X_USERCONTAINERD_UNIT={other.unit}\\nSTOPPING=1')\ntime.sleep(1000)\n"
        )
        one = container(define(script, output))
        starting = start_without_waiting(one)
        wait_until((output / "up").exists, "all was said")
        starting.wait(60)
        assert one.pid not in (*pids, victim.pid, other.pid, 1)
        assert "container" in Path(f"/proc/{one.pid}/cgroup").read_text()
        assert one.show("NFileDescriptorStore") == "0"
        assert other.show("StatusText") == "Running"
        assert other.show("ActiveState") == "active"
        # Last: since systemd 262, who says this first never becomes ready.
        (output / "stop").touch()
        wait_until(lambda: one.show("ActiveState") != "active", "it says that it stops")
        assert other.show("ActiveState") == "active"
        one.stop()
        assert victim.poll() is None
        assert other.show("ActiveState") == "active"
    finally:
        victim.kill()
        victim.wait()


def test_without_it_there_is_no_socket(container: Make, tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = "print(os.environ.get('NOTIFY_SOCKET'), os.listdir('/run'), file=open('/out/found', 'w'))\n"
    one = container(define(script, output).replace('notify = "container"\n', ""))
    one.start()
    one.finish()
    assert (output / "found").read_text() == "None ['.containerenv']\n"
