"""Standard output: the journal's own socket, or a pipe for programs that open /dev/stdout by name."""

from __future__ import annotations

from collections.abc import Callable

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
