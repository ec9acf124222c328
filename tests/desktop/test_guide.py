"""What docs/dbus.md and the README show works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.containers import BUSYBOX, Container, run

TOP = Path(__file__).parents[2]
GUIDE = (TOP / "docs/dbus.md").read_text(encoding="utf-8")
LIVE, PULL, MAKE, LOGS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
TALK = f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "echo hello; sleep 1000"]\nnetwork = "none"\nstop_timeout = 0\n'
FIND = """
container = next(
    found for each in objects.get_objects()
    if (found := each.get_interface("org.usercontainer1.Container")) is not None
    and found.get_cached_property("Name").unpack() == sys.argv[1]
)
"""


def test_the_list(container: Callable[..., Container]) -> None:
    one = container(TALK)
    program = subprocess.Popen(
        [sys.executable, "-u", "-c", LIVE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == f"{one.name} created {BUSYBOX}\n"
        one.start()
        lines: list[str] = []
        while f"{one.name} running {BUSYBOX}\n" not in lines:
            lines.append(program.stdout.readline())
            assert lines[-1], lines
    finally:
        program.kill()
        program.communicate()


def run_blocks(*blocks: str, name: str = "") -> str:
    """Run a program of the guide's first block and others."""
    text = "\n".join(["import sys", LIVE.replace("GLib.MainLoop().run()\n", ""), *blocks])
    return run(sys.executable, "-c", text, name).stdout


def test_a_pull() -> None:
    run("usercontainer", "rmi", "-f", BUSYBOX, check=False)
    wait = (
        'while job.get_cached_property("State").unpack() == "running":\n'
        "    GLib.MainContext.default().iteration(True)\n"
    )
    shown = run_blocks(PULL.replace("docker.io/library/alpine", BUSYBOX), wait).splitlines()
    assert "done " in shown


def test_one_that_is_made() -> None:
    run("usercontainer", "pull", "-q", BUSYBOX)
    proxies = PULL[PULL.index("def make_proxy") : PULL.index("path = manager")]
    assert "path = manager.CreateContainer" in MAKE
    shown = run_blocks(proxies, MAKE.replace("docker.io/library/alpine", BUSYBOX)).splitlines()
    assert shown[-1] == "0.0.0.0:8080 leads to 80/tcp"
    assert "clock" not in run("usercontainer", "ps", "-a", "--format", "{{.Names}}").stdout.split()


def test_a_log(container: Callable[..., Container]) -> None:
    one = container(TALK)
    one.start()
    read = 'print(stream.read_bytes(100, None).get_data().decode(), end="")'
    assert run_blocks(FIND, LOGS, read, name=one.name).splitlines()[-1] == "hello"


def test_commands(container: Callable[..., Container]) -> None:
    web = container(TALK, "web")
    shown = (TOP / "README.md").read_text(encoding="utf-8") + GUIDE.partition("## From a shell")[2]
    commands = re.findall(r"^    (busctl .*)$", shown, re.MULTILINE)
    assert len(commands) == 4
    outputs = [run("sh", "-c", command).stdout for command in commands]
    assert '"web" "created"' in outputs[0]
    assert run("systemctl", "--user", "is-active", web.unit).stdout == "active\n"
    # Of this name other tests have one, too, which shall not find how this one ended.
    web.remove()
    run("usercontainer", "rm", "web")
