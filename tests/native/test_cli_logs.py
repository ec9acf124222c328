"""`usercontainer logs`: the container's part of the journal."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from tests.support.containers import BUSYBOX, Container, run, wait_until

LOGS = ("usercontainer", "logs")
COUNT = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; done; echo error >&2; exec sleep 1000"


def logs(*words: str) -> list[str]:
    return run(*LOGS, *words).stdout.splitlines()


def start(container: Callable[..., Container], script: str, more: str = "") -> Container:
    one = container(f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["sh", "-c", "{script}"]\n{more}')
    one.start()
    return one


def test_all_of_it_and_parts(container: Callable[..., Container]) -> None:
    one = start(container, COUNT)
    wait_until(lambda: "error" in logs(one.name), "the log is written")
    assert logs(one.name) == [*(f"line {number}" for number in range(1, 6)), "error"]
    assert logs("--tail", "2", one.name) == ["line 5", "error"]
    assert logs("-n", "0", one.name) == []
    assert logs("--since", "10m", one.name)[0] == "line 1"
    assert logs("--until", "10m", one.name) == []
    stamped = logs("-t", "-n1", one.name)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z error", stamped[0])


def test_of_a_process_that_is_not_root_inside(container: Callable[..., Container]) -> None:
    one = start(container, COUNT, 'user = "www"\n')
    wait_until(lambda: "error" in logs(one.name), "the log is written")


def test_following_ends_with_the_container(container: Callable[..., Container]) -> None:
    one = start(container, "trap 'echo bye; exit 0' TERM; while :; do echo tick; sleep 0.1; done")
    for options in (["-f"], ["-f", "-t"]):
        process = subprocess.Popen([*LOGS, *options, one.name], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert all("tick" in process.stdout.readline() for _ in range(5))
        assert process.poll() is None
        one.stop()
        output, _ = process.communicate(timeout=60)
        assert output.rstrip().endswith("bye")
        one.start()
    one.stop()
    assert logs("-f", one.name)[-1] == "bye"  # it does not run: nothing to follow
    wait_until(
        lambda: run("pgrep", "-u", "alice", "journalctl", check=False).returncode == 1, "no journalctl stays"
    )


def test_following_goes_on_over_a_restart(container: Callable[..., Container]) -> None:
    one = start(
        container,
        "echo began; sleep 0.3; exit 3",
        'restart = "on-failure"\n[service]\nRestartSec = "200ms"\n',
    )
    process = subprocess.Popen([*LOGS, "-f", one.name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["began\n", "began\n"]
    one.stop()
    process.communicate(timeout=60)
