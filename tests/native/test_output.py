"""Standard output: the journal's own socket, or a pipe for programs that open /dev/stdout by name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import BUSYBOX, Container, run, wait_until
from tests.support.fakeregistry import file
from tests.support.images import PATH as IMAGE_PATH
from tests.support.images import Member, directory, serve_images, symlink
from usercontainerd.runtime.copier import PATIENCE
from usercontainerd.runtime.streamnames import Command, Search

Make = Callable[..., Container]

# The writer stays a moment: of one that is gone the journal may no longer learn the unit.
WRITE = "echo by-name > {where}; echo plainly; echo wrong >&2; exec sleep 1000"


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
    one = container(f'{text}output = "pipe"\nuser = "{user}"\nstop_timeout = 0\n')
    one.start()
    lines = {"by-name", "plainly", "wrong"}
    wait_until(lambda: lines <= set(read_own_journal(one.unit).splitlines()), "all three lines")
    assert "cat" in list_programs(one)
    one.stop()


def test_the_journals_socket_cannot(container: Make) -> None:
    command = WRITE.format(where="/dev/stdout")
    text = f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "{command}"]\nnetwork = "none"\n'
    one = container(f'{text}output = "journal"\nstop_timeout = 0\n')
    one.start()
    wait_until(lambda: "plainly" in read_own_journal(one.unit).splitlines(), "plainly")
    assert "by-name" not in read_own_journal(one.unit).splitlines()
    assert "cat" not in list_programs(one)


# Each opens its output by name when it starts, as the image of that name does, and fails if it cannot.
START = "#!/bin/sh\nset -e\n"
HTTPD_CONF = b"# errors\nErrorLog /proc/self/fd/2\nLogLevel warn\nCustomLog /proc/self/fd/1 common\n"
READ_HTTPD_CONF = (
    'while read -r key file rest; do case $key in *Log) echo "$key by name" >> "$file";; esac; done '
    "< /usr/local/apache2/conf/httpd.conf\nexec sleep 1000\n"
)
OPEN_STDERR = "echo by name > /dev/stderr\nexec sleep 1000\n"


def program(path: str, text: str) -> Member:
    return file(path, (START + text).encode(), mode=0o755)


SHAPES: dict[str, tuple[list[Member], dict[str, Any]]] = {
    "nginx": (
        [
            directory("var/log"),
            directory("var/log/nginx"),
            symlink("var/log/nginx/access.log", "/dev/stdout"),
            program("start", "echo by name >> /var/log/nginx/access.log\nexec sleep 1000\n"),
        ],
        {"Cmd": ["/start"], "StopSignal": "SIGQUIT"},
    ),
    "httpd": (
        [
            file("usr/local/apache2/conf/httpd.conf", HTTPD_CONF),
            program("usr/local/bin/httpd-foreground", READ_HTTPD_CONF),
        ],
        {"Cmd": ["httpd-foreground"], "StopSignal": "SIGWINCH", "WorkingDir": "/usr/local/apache2"},
    ),
    "php-fpm": (
        [
            file("usr/local/etc/php-fpm.d/docker.conf", b"[global]\nerror_log = /proc/self/fd/2\n"),
            program("usr/local/bin/docker-php-entrypoint", 'exec "$@"\n'),
            program("usr/local/sbin/php-fpm", "echo by name >> /proc/self/fd/2\nexec sleep 1000\n"),
        ],
        {"Entrypoint": ["docker-php-entrypoint"], "Cmd": ["php-fpm"], "StopSignal": "SIGQUIT"},
    ),
    "postgres": (
        [
            program("usr/local/bin/docker-entrypoint.sh", 'exec gosu www "$@"\n'),
            program("usr/local/bin/gosu", 'shift; exec busybox su www -c "$*"\n'),
            program("usr/local/bin/postgres", OPEN_STDERR),
        ],
        {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["/usr/local/bin/postgres"], "StopSignal": "SIGINT"},
    ),
    "mysql": (
        [
            program("usr/local/bin/docker-entrypoint.sh", f"# writes\n{OPEN_STDERR}"),
            symlink("entrypoint.sh", "usr/local/bin/docker-entrypoint.sh"),
        ],
        {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["mysqld"]},
    ),
    "cron": (
        [
            file("etc/crontabs/root", b"* * * * * /job.sh >> /proc/1/fd/1 2>&1\n"),
            program("start", "echo by name >> /proc/1/fd/1\nexec sleep 1000\n"),
        ],
        {"Cmd": ["/start"]},
    ),
    "supervisord": (
        [
            file("app/supervisord.ini", b"[program:web]\nstdout_logfile=/dev/fd/1\n"),
            program("start", "echo by name >> /dev/fd/1\nexec sleep 1000\n"),
        ],
        {"Cmd": ["/start", "--configuration=/app/supervisord.ini"]},
    ),
    "variable": (
        [program("start", 'echo by name >> "$LOG_FILE"\nexec sleep 1000\n')],
        {"Cmd": ["/start"], "Env": ["LOG_FILE=/dev/stderr"]},
    ),
}


@pytest.fixture(scope="module")
def shapes() -> Iterator[dict[str, str]]:
    """The images, by their shape."""
    with serve_images() as maker:
        yield {
            name: maker.add(
                name, *members, settings={**settings, "Env": [IMAGE_PATH, *settings.get("Env", ())]}
            )
            for name, (members, settings) in SHAPES.items()
        }


@pytest.mark.parametrize("shape", SHAPES)
def test_images_that_open_their_output_by_name_get_a_pipe(
    container: Make, shapes: dict[str, str], shape: str
) -> None:
    one = container(f'image = "{shapes[shape]}"\nnetwork = "none"\n')
    one.start()
    wait_until(lambda: "by name" in read_own_journal(one.unit), "what it writes by name")
    assert one.show("ActiveState") == "active"


def test_without_a_pipe_they_would_fail(container: Make, shapes: dict[str, str]) -> None:
    one = container(f'image = "{shapes["httpd"]}"\nnetwork = "none"\noutput = "journal"\n')
    one.start(check=False)
    wait_until(lambda: one.has_ended, "the end")
    assert one.show("ActiveState") == "failed"


# No shell, and nothing that it is given tells where it writes to.
READ_OWN_CONF = """\
BEGIN {
    while ((getline < "/usr/local/apache2/conf/own.conf") > 0)
        if ($1 ~ /Log$/) { print $1 " by name" >> $2; close($2) }
    while (1) system("sleep 1000")
}
"""


def test_configuration_of_the_host_is_looked_at(container: Make, tmp_path: Path) -> None:
    configuration, script = tmp_path / "httpd.conf", tmp_path / "start.awk"
    configuration.write_bytes(b"Listen 80\n")
    script.write_text(READ_OWN_CONF)
    one = container(
        f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["awk", "-f", "/work/start.awk"]\nstop_timeout = 0\n'
        f'mounts = ["{configuration}:/usr/local/apache2/conf/own.conf", "{tmp_path}:/work"]\n'
    )
    one.start()
    assert inspect_output(one) == {"output": "journal"}
    one.stop()
    configuration.write_bytes(HTTPD_CONF)
    one.start()
    assert inspect_output(one)["reason"].startswith("the mount on /usr/local/apache2/conf/own.conf: ")
    wait_until(
        lambda: "CustomLog by name" in read_own_journal(one.unit).splitlines(), "what it writes by name"
    )
    one.stop()
    configuration.write_bytes(b"Listen 80\n")
    script.write_text('BEGIN { print "by name" > "/dev/stderr"; close("/dev/stderr"); system("sleep 1000") }')
    one.start()
    assert inspect_output(one)["reason"].startswith("the mount on /work/start.awk: ")
    wait_until(lambda: "by name" in read_own_journal(one.unit).splitlines(), "what the script writes")


def test_a_plain_image_keeps_the_journals_socket(container: Make) -> None:
    one = container(f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\n')
    one.start()
    assert list_programs(one) == {"sleep"}


def test_a_shell_gets_a_pipe_since_its_programs_end_at_once(container: Make) -> None:
    count = 200
    script = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); /bin/busybox echo line $i; done; sleep 1000"
    one = container(define_script(script, ""))
    one.start()
    wait_until(lambda: f"line {count}" in read_own_journal(one.unit).splitlines(), "the last line")
    for lines in (read_own_journal(one.unit), run("usercontainer", "logs", one.name).stdout):
        assert sum(line.startswith("line ") for line in lines.splitlines()) == count


def test_inspect_says_what_was_chosen_and_why(container: Make) -> None:
    one = container(define_script("sleep 1000", "stop_timeout = 0"))
    assert inspect_output(one) == {"output": "auto"}
    one.start()
    assert inspect_output(one) == {"output": "pipe", "reason": "sh runs other programs"}
    one.define(f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["sleep", "1000"]\nstop_timeout = 0\n')
    if run("systemctl", "--user", "restart", one.unit, check=False).returncode:
        pytest.fail(one.journal())
    assert inspect_output(one) == {"output": "journal"}


def inspect_output(one: Container) -> dict[str, str]:
    shown = json.loads(run("usercontainer", "inspect", one.name).stdout)[0]
    found: dict[str, str] = shown["HostConfig"]["LogConfig"]["Config"]
    return found


# Opens /dev/stdout, and nothing shows it; ends at once, well if that went well.
HIDDEN = f'image = "{BUSYBOX}"\nnetwork = "none"\nworking_directory = "/dev"\ncommand = ["tee", "stdout"]\n'


def test_a_failure_for_want_of_a_pipe_is_learnt_from(container: Make) -> None:
    one = container(f'{HIDDEN}restart = "on-failure"\n')
    one.start(check=False)
    wait_until(lambda: one.show("ActiveState") == "inactive", "the second run, which ends well")
    journal = one.journal()
    assert "tee: stdout: No such device or address" in journal
    assert "from now on its output is a pipe" in journal
    assert "a run failed" in inspect_output(one)["reason"]
    one.start()
    wait_until(lambda: one.has_ended, "the third")
    assert (one.show("ActiveState"), one.show("Result")) == ("inactive", "success")
    assert one.journal().count("from now on") == 1


def test_who_asked_for_the_socket_is_told(container: Make) -> None:
    one = container(f'{HIDDEN}output = "journal"\n')
    for _ in range(2):
        one.start(check=False)
        wait_until(lambda: one.show("ActiveState") == "failed", "the end")
    assert 'its definition should say output = "pipe"' in one.journal()


def test_other_failures_teach_nothing(container: Make) -> None:
    one = container(f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["cat", "/nowhere"]\n')
    for _ in range(3):
        one.start(check=False)
        wait_until(lambda: one.show("ActiveState") == "failed", "the end")
    assert inspect_output(one) == {"output": "journal"}
    assert "pipe" not in one.journal()


def test_nothing_in_a_distribution_is_a_reason(tmp_path: Path) -> None:
    """The machine's own root file system."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    search = Search(root)
    assert search.find_reason(Command(["sleep", "1000"], ["HOME=/root"], "/", "/usr/bin:/bin")) == ""
    assert not search.is_exhausted
    os.close(root)


def test_the_lines_of_another_user_are_the_users_own(container: Make) -> None:
    one = container(f'image = "{BUSYBOX}"\nuser = "www"\ncommand = ["sh", "-c", "echo mine; sleep 1000"]\n')
    one.start()
    wait_until(lambda: "mine" in read_own_journal(one.unit).splitlines(), "the line")


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


def test_a_signal_for_all_of_the_unit_leaves_the_output(container: Make) -> None:
    """``systemctl kill`` without --kill-whom=main reaches the copier, too."""
    traps = "; ".join(f"trap 'echo had {name}' {name}" for name in ("HUP", "USR1", "USR2"))
    one = container(define_script(f"{traps}; echo ready; while :; do sleep 0.1; done"))
    one.start()
    wait_until(lambda: "ready" in one.journal(), "it has its handlers")
    for name in ("HUP", "USR1", "USR2"):
        run("systemctl", "--user", "kill", f"--signal={name}", one.unit)
        wait_until(lambda word=f"had {name}": word in one.journal(), "its words come")  # type: ignore[misc]
    one.stop()


def test_a_stop_whose_settings_are_lost_does_not_wait(container: Make) -> None:
    """A definition that is gone takes the unit's ``ExecStopPost=`` with it, which would end the copier."""
    one = container(define_script("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"))
    one.start()
    wait_until(lambda: "ready" in one.journal(), "it has its handler")
    one.path.unlink()
    run("systemctl", "--user", "daemon-reload")
    run("systemctl", "--user", "stop", one.unit, timeout=60)  # DefaultTimeoutStopSec= is 90
    assert one.show("ActiveState") == "inactive"


def test_nothing_stays_and_a_stop_does_not_wait(container: Make) -> None:
    one = container(define_script("trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"))
    times = []
    for _ in range(5):
        one.start()
        members = [int(pid) for pid in (one.cgroup / "container" / "cgroup.procs").read_text().split()]
        before = time.monotonic()
        one.stop()
        times.append(time.monotonic() - before)
        if times[-1] < PATIENCE:
            break  # else the host is busy, or always so long is waited for a pipe that stays open
    assert min(times) < PATIENCE
    assert not [pid for pid in members if os.path.exists(f"/proc/{pid}")]
    assert "bye" in one.journal().splitlines()
    assert "remains running" not in one.journal()
