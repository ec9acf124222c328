"""Standard output: the journal's own socket, or a pipe for programs that open /dev/stdout by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, Container, run, wait_until
from tests.support.images import ImageMaker, directory, images, symlink

Make = Callable[..., Container]
__all__ = ["images"]

# The writer stays a moment: of one that is gone the journal may no longer learn the unit.
WRITE = "echo by-name > {where}; echo plainly; echo wrong >&2; sleep 2"


def read_own_journal(unit: str) -> str:
    """What `journalctl --user -u` shows to the user."""
    return run("journalctl", "--user", "-u", unit, "-o", "cat", "--no-pager").stdout


def list_programs(one: Container) -> set[str]:
    pids = (one.cgroup / "container" / "cgroup.procs").read_text().split()
    return {run("ps", "-o", "comm=", "-p", pid).stdout.strip() for pid in pids}


@pytest.mark.parametrize("user", ["root", "1000"])
def test_a_pipe_can_be_opened_by_name_and_its_lines_are_the_users(container: Make, user: str) -> None:
    command = WRITE.format(where="/dev/stdout")
    text = f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "{command}"]\nnetwork = "none"\n'
    one = container(f'{text}output = "pipe"\nuser = "{user}"\n')
    one.start()
    lines = {"by-name", "plainly", "wrong"}
    wait_until(lambda: lines <= set(read_own_journal(one.unit).splitlines()), "all three lines")
    assert "cat" in list_programs(one)
    one.stop()


def test_the_journals_socket_cannot(container: Make) -> None:
    command = WRITE.format(where="/dev/stdout")
    one = container(f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "{command}"]\nnetwork = "none"\n')
    one.start()
    wait_until(lambda: "plainly" in read_own_journal(one.unit).splitlines(), "plainly")
    assert "by-name" not in read_own_journal(one.unit).splitlines()
    assert "cat" not in list_programs(one)


def test_an_image_that_logs_to_dev_stdout_gets_a_pipe(container: Make, images: ImageMaker) -> None:
    name = images.add(
        "logs",
        directory("var/log"),
        directory("var/log/web"),
        symlink("var/log/web/access.log", "/dev/stdout"),
    )
    command = WRITE.format(where="/var/log/web/access.log")
    one = container(f'image = "{name}"\ncommand = ["sh", "-c", "{command}"]\nnetwork = "none"\n')
    one.start()
    wait_until(lambda: "by-name" in read_own_journal(one.unit).splitlines(), "by-name")


LINE, LINES = 40_000, 128  # 5 MB; shorter than what the journal takes for one line
FLOOD = f'i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); printf "%0{LINE}d\\n" $i; done'
RUNS = int(os.environ.get("RUNS", "6"))


def define_script(script: str, more: str = 'output = "pipe"') -> str:
    return (
        f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["sh", "-c", \'\'\'{script}\'\'\']\n{more}\n'
        "[unit]\nStartLimitIntervalSec = 0\n"
    )


def read_numbers(one: Container, since: float) -> list[int]:
    """The lines of ``FLOOD`` that the journal has under the unit, each checked for its length."""
    command = ("journalctl", "-a", "-o", "cat", "--no-pager", f"--since=@{since:.6f}")
    lines = run(*command, f"_SYSTEMD_USER_UNIT={one.unit}", check=False).stdout.splitlines()
    return [int(line[-6:]) for line in lines if len(line) == LINE]


def wait_for_numbers(one: Container, since: float) -> None:
    wait_until(lambda: len(read_numbers(one, since)) >= LINES, "all lines")
    assert read_numbers(one, since) == list(range(1, LINES + 1))


@pytest.mark.parametrize("status", [0, 7])
def test_no_byte_is_lost_when_the_command_ends(container: Make, status: int) -> None:
    one = container(define_script(f"{FLOOD}; exit {status}"))
    for _ in range(RUNS):
        since = time.time()
        one.start(check=False)
        wait_until(lambda: one.has_ended, "the end")
        assert one.show("ExecMainStatus") == str(status)
        wait_for_numbers(one, since)


def test_no_byte_is_lost_when_init_is_killed(container: Make) -> None:
    one = container(define_script(f"{FLOOD}; exec sleep 1000"))
    for _ in range(RUNS):
        since = time.time()
        one.start()
        wait_until(lambda: Path(f"/proc/{one.pid}/comm").read_text() == "sleep\n", "all is written")
        os.kill(one.pid, 9)
        wait_until(lambda: one.has_ended, "the end")
        assert (one.show("Result"), one.show("ExecMainStatus")) == ("signal", "9")
        wait_for_numbers(one, since)


@pytest.mark.parametrize("user", ["root", "1000"])
def test_the_words_of_a_command_that_ends_at_once_are_the_units(container: Make, user: str) -> None:
    one = container(define_script("echo at once; exit 3", f'output = "pipe"\nuser = "{user}"'))
    for _ in range(RUNS):
        one.start(check=False)
        wait_until(lambda: one.has_ended, "the end")
    wait_until(lambda: one.journal().splitlines().count("at once") == RUNS, "one line a run")


def test_nothing_stays_and_a_stop_does_not_wait(container: Make) -> None:
    one = container(define_script("trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"))
    one.start()
    members = [int(pid) for pid in (one.cgroup / "container" / "cgroup.procs").read_text().split()]
    before = time.monotonic()
    one.stop()
    assert time.monotonic() - before < 1.5  # less than the patience with a pipe that stays open
    assert not [pid for pid in members if os.path.exists(f"/proc/{pid}")]
    assert "bye" in one.journal().splitlines()
    assert "remains running" not in one.journal()
