"""Health checks by a real systemd: what they find, what is done about it, and what is left of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bus import CONTAINER, call, path_of, read, wait_for
from tests.support.containers import BUSYBOX, SLEEPER, Container, run, wait_until

pytestmark = pytest.mark.usefixtures("bus_image")
Make = Callable[..., Container]
CHECK = 'command = ["test", "-e", "/tmp/well"]\ninterval = 1\n'


def define(health: str, more: str = "") -> str:
    return f'{SLEEPER}mounts = [{{ type = "tmpfs", target = "/tmp" }}]\n{more}[health]\n{health}'


def inspect(one: Container) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("usercontainer", "inspect", one.name).stdout)[0]
    return found


def read_health(one: Container) -> dict[str, Any]:
    health: dict[str, Any] = inspect(one)["State"]["Health"]
    return health


def wait_health(one: Container, wanted: str) -> None:
    wait_until(lambda: read_health(one)["Status"] == wanted, f"it is {wanted}")


def execute(one: Container, *command: str) -> None:
    run("usercontainer", "exec", one.name, *command)


def timer(one: Container) -> str:
    return f"container-health@{one.name}.timer"


def service(one: Container) -> str:
    return f"container-health@{one.name}.service"


def is_active(unit: str) -> bool:
    return run("systemctl", "--user", "is-active", unit, check=False).stdout.strip() == "active"


def test_well_ill_and_well_again(container: Make) -> None:
    one = container(define(f"{CHECK}retries = 2\n"))
    one.start()
    assert run("usercontainer", "wait", "--condition", "unhealthy", one.name).stdout == "0\n"
    path = path_of(one)
    wait_for(path, CONTAINER, "Health", "unhealthy")
    health = read_health(one)
    assert health["FailingStreak"] >= 2
    assert health["Log"][-1].keys() == {"Start", "End", "ExitCode", "Output"}
    assert health["Log"][-1]["ExitCode"] == 1
    execute(one, "touch", "/tmp/well")
    wait_for(path, CONTAINER, "Health", "healthy")
    run("usercontainer", "wait", "--condition", "healthy", one.name)
    assert read_health(one)["FailingStreak"] == 0
    shown = run("usercontainer", "ps", "--filter", f"name={one.name}", "--filter", "health=healthy").stdout
    assert "(healthy)" in shown
    assert one.name not in run("usercontainer", "ps", "--filter", "health=unhealthy").stdout
    execute(one, "rm", "/tmp/well")
    wait_for(path, CONTAINER, "Health", "unhealthy")
    assert one.show("ActiveState") == "active", "nothing is done about it unless asked for"
    assert len(read_health(one)["Log"]) <= 5


def test_the_journal_has_a_line_for_each_change_only(container: Make) -> None:
    one = container(define(f"{CHECK}retries = 1\n"))
    one.start()
    wait_health(one, "unhealthy")
    wait_until(lambda: len(read_health(one)["Log"]) == 5, "five checks")
    execute(one, "touch", "/tmp/well")
    wait_health(one, "healthy")
    words = ("journalctl", "--user", "-o", "cat", "--no-pager")
    expected = [f"container {one.name} is unhealthy: exit status 1", f"container {one.name} is healthy"]

    def read_lines() -> list[str]:
        # By identifier: journald loses the unit of a line whose writer has ended before it looks.
        return run(*words, f"SYSLOG_IDENTIFIER={one.name}").stdout.splitlines()

    wait_until(lambda: expected[1] in read_lines(), "the journal has it")
    assert read_lines() == expected
    told = run(*words, f"--user-unit={service(one)}").stdout.splitlines()
    # systemd 262 says so of every unit where the kernel's controllers are somebody else's, as in a private machine.
    assert {line for line in told if "Failed to read pids.max" not in line} <= set(expected)
    assert "health" not in run("usercontainer", "logs", one.name).stdout


def test_nothing_is_left(container: Make) -> None:
    one = container(define(CHECK))
    one.start()
    wait_until(lambda: is_active(timer(one)), "its timer runs")
    wait_until(lambda: read_health(one)["Log"], "it is checked")
    one.stop()
    assert not is_active(timer(one))
    assert run("usercontainer", "ps", "-a", "--filter", "health=starting", "-q").stdout == ""
    listed = run(
        "systemctl", "--user", "list-units", "--all", "--plain", f"container-health@{one.name}*"
    ).stdout
    assert one.name not in listed
    one.start()
    wait_until(lambda: is_active(timer(one)), "its timer runs again")
    one.stop()
    one.path.unlink()
    run("usercontainer", "rm", one.name)
    assert not Path(os.environ["XDG_RUNTIME_DIR"], "usercontainerd/health", one.name).exists()
    listed = run(
        "systemctl", "--user", "list-unit-files", f"container-health@{one.name}*", check=False
    ).stdout
    assert one.name not in listed


def test_an_old_result_is_none_of_the_next_run(container: Make) -> None:
    one = container(define(f"{CHECK}retries = 1\n"))
    one.start()
    wait_health(one, "unhealthy")
    one.stop()
    assert read_health(one)["Status"] == "unhealthy"  # what was found last
    one.write(define('command = "true"\ninterval = "disable"\n'))
    one.start()
    assert read_health(one) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert not is_active(timer(one))
    assert run("usercontainer", "healthcheck", "run", one.name).stdout == ""
    assert read_health(one)["Status"] == "healthy"


def test_what_hangs_is_killed_with_all_that_it_started(container: Make) -> None:
    hang = 'command = "echo begun; sleep 4321 & sleep 4321"\ninterval = 0\ntimeout = 1\nretries = 1\n'
    one = container(define(hang))
    one.start()
    done = run("usercontainer", "healthcheck", "run", one.name, check=False)
    assert (done.returncode, done.stdout) == (1, "unhealthy\n")
    entry = read_health(one)["Log"][-1]
    assert entry["ExitCode"] == -1
    assert entry["Output"].startswith("begun\n")
    assert "exceeded timeout" in entry["Output"]
    assert "4321" not in run("usercontainer", "top", one.name, "args").stdout
    assert not (one.cgroup / "health").exists()


def test_what_it_leaves_behind_is_killed_and_output_is_bounded(container: Make) -> None:
    script = 'command = "sleep 4321 & yes x | head -c 100000; exit 3"\ninterval = 0\n'
    one = container(define(script))
    one.start()
    done = run("usercontainer", "healthcheck", "run", one.name, check=False)
    assert (done.returncode, done.stdout) == (1, "starting\n")
    entry = read_health(one)["Log"][-1]
    assert entry["ExitCode"] == 3
    assert len(entry["Output"]) == 500
    assert "4321" not in run("usercontainer", "top", one.name, "args").stdout


@pytest.mark.parametrize("action", ["restart", "stop", "kill"])
def test_what_is_done(container: Make, action: str) -> None:
    more = 'restart = "on-failure"\nunit.StartLimitIntervalSec = 0\n'
    one = container(define(f'{CHECK}retries = 1\non_failure = "{action}"\n', more))
    one.start()
    pid = one.pid
    if action == "stop":
        wait_until(lambda: one.has_ended, "it is stopped")
        assert one.show("Result") == "success"
        assert read_health(one)["Status"] == "unhealthy"
        return
    wait_until(lambda: one.show("ActiveState") == "active" and one.pid not in (0, pid), "another one runs")
    assert (one.show("NRestarts") != "0") == (action == "kill")
    wait_until(lambda: is_active(timer(one)), "it is checked, too")


def test_failures_in_the_start_period_do_not_count(container: Make) -> None:
    one = container(define(f"{CHECK}retries = 1\nstart_period = 600\nstart_interval = 1\n"))
    one.start()
    done = run("usercontainer", "healthcheck", "run", one.name, check=False)
    assert (done.returncode, done.stdout) == (1, "starting\n")
    assert read_health(one)["FailingStreak"] == 0
    execute(one, "touch", "/tmp/well")
    run("usercontainer", "healthcheck", "run", one.name)
    execute(one, "rm", "/tmp/well")
    run("usercontainer", "healthcheck", "run", one.name, check=False)
    assert read_health(one)["Status"] == "unhealthy"


def test_over_the_bus(container: Make) -> None:
    one = container(define('command = "echo fine; exit $(cat /tmp/status)"\ninterval = 0\n'))
    one.start()
    path = path_of(one)
    wait_for(path, CONTAINER, "Health", "starting")
    execute(one, "sh", "-c", "echo 0 > /tmp/status")
    assert call(path, CONTAINER, "RunHealthcheck", "a{sv}", "0") == [True, 0, "fine\n"]
    assert read(path, CONTAINER, "Health") == "healthy"
    one.stop()
    wait_for(path, CONTAINER, "Health", "")


def test_what_has_none(container: Make) -> None:
    one = container(SLEEPER)
    stopped = run("usercontainer", "healthcheck", "run", one.name, check=False)
    assert (stopped.returncode, "does not run" in stopped.stderr) == (125, True)
    one.start()
    none = run("usercontainer", "healthcheck", "run", one.name, check=False)
    assert (none.returncode, "no health check" in none.stderr) == (125, True)
    assert read_health(one) == {"Status": "", "FailingStreak": 0, "Log": []}
    assert not is_active(timer(one))


def test_an_edit(container: Make) -> None:
    one = container(define('command = "true"\ninterval = 3600\n'))
    one.start()
    wait_until(lambda: is_active(timer(one)), "its timer runs")
    one.stop()
    one.write(define('command = "true"\ninterval = 1800\n'))  # and no daemon-reload
    one.start()
    wait_until(lambda: is_active(timer(one)), "its timer runs")
    assert "OnUnitInactiveSec=1800" in run("systemctl", "--user", "cat", timer(one)).stdout
    one.stop()
    one.write(SLEEPER)
    one.start()
    assert not is_active(timer(one))


@pytest.fixture(scope="module")
def checked_image() -> Iterator[str]:
    """An image with a check of its own, by the real thing."""
    name = f"localhost/checked-{os.urandom(3).hex()}"
    text = f'FROM {BUSYBOX}\nHEALTHCHECK --interval=1s --retries=2 CMD test -e /well\nCMD ["sleep", "1000"]\n'
    run("podman", "pull", "-q", BUSYBOX)
    subprocess.run(
        ["podman", "build", "--format=docker", "-t", name, "-"],
        input=text,
        text=True,
        check=True,
        capture_output=True,
    )
    run("usercontainer", "image", "import-storage", "-q", name)
    yield name
    run("podman", "rmi", "-f", name)


def test_the_image_says_how(container: Make, checked_image: str) -> None:
    one = container(f'image = "{checked_image}"\nnetwork = "none"\nstop_timeout = 0\npull = "never"\n')
    one.start()
    wait_until(lambda: is_active(timer(one)), "its timer runs")
    assert f"Upholds={timer(one)}" in run("systemctl", "--user", "cat", one.unit).stdout
    execute(one, "touch", "/well")
    wait_health(one, "healthy")
    one.stop()
    assert not is_active(timer(one))
    one.start()
    wait_until(lambda: is_active(timer(one)), "its timer runs again")


def test_create_and_the_flags(checked_image: str) -> None:
    name = f"made-{os.urandom(3).hex()}"
    create = ("usercontainer", "create", "-q", "--name", name, "--network", "none", "--pull", "never")
    more = ("--health-interval", "2s", "--health-on-failure", "stop")
    run(*create, "--stop-timeout", "0", *more, checked_image)
    one = Container(name)
    try:
        config = inspect(one)["Config"]
        assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "test -e /well"]
        assert config["Healthcheck"]["Interval"] == 2_000_000_000
        assert config["HealthcheckOnFailureAction"] == "stop"
        run("usercontainer", "start", name)
        wait_until(lambda: is_active(timer(one)), "its timer runs")
        run("usercontainer", "update", "--pids-limit", "100", name)
        assert inspect(one)["Config"] == config
        run("usercontainer", "rm", "-f", name)
        assert not is_active(timer(one))
        run(*create, "--no-healthcheck", checked_image)
        run("usercontainer", "start", name)
        assert read_health(one)["Status"] == ""
    finally:
        run("usercontainer", "rm", "-f", name)


def test_podman_has_the_same_keys(checked_image: str) -> None:
    theirs = f"theirs-{os.urandom(3).hex()}"
    run("podman", "create", "--name", theirs, "--network", "none", checked_image)
    ours = f"ours-{os.urandom(3).hex()}"
    run(
        "usercontainer", "create", "-q", "--name", ours, "--network", "none", "--pull", "never", checked_image
    )
    try:
        podmans = json.loads(run("podman", "inspect", theirs).stdout)[0]
        own = inspect(Container(ours))
        assert own["State"]["Health"].keys() == podmans["State"]["Health"].keys()
        assert own["Config"]["Healthcheck"]["Test"] == podmans["Config"]["Healthcheck"]["Test"]
        assert podmans["Config"]["Healthcheck"].items() <= own["Config"]["Healthcheck"].items()
        assert own["Config"]["HealthcheckOnFailureAction"] == podmans["Config"]["HealthcheckOnFailureAction"]
    finally:
        run("podman", "rm", "-f", theirs)
        run("usercontainer", "rm", "-f", ours)
