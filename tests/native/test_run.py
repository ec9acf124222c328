"""`usercontainer run`: whose descriptors a container has, what comes back, and what stays of it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, run, wait_until

RUN = ("usercontainer", "run", "--network", "none")
DATA = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")) / "usercontainerd"
RUNTIME = Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd"


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    run("usercontainer", "pull", "-q", BUSYBOX)


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a container, which is gone after the test."""
    one = f"run-{os.urandom(3).hex()}"
    yield one
    run("systemctl", "--user", "kill", "--kill-whom=main", "--signal=KILL", f"container@{one}", check=False)
    run("usercontainer", "rm", "-f", "-t", "0", one, check=False)


def execute(*words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*RUN, *words], capture_output=True, check=False, timeout=60, input=stdin)


def find_traces(name: str) -> list[str]:
    """Everything on disk that bears the name, and the unit if systemd has it."""
    places = (
        DATA / "created",
        DATA / "containers",
        RUNTIME / "created",
        RUNTIME / "containers",
        RUNTIME / "crun",
    )
    units = Path(os.environ["XDG_RUNTIME_DIR"]) / "systemd"
    found = [str(path) for place in places for path in place.glob(f"*{name}*")]
    found += [str(path) for path in units.rglob(f"*{name}*")]
    listed = run(
        "systemctl", "--user", "list-units", "--all", "--no-legend", f"container@{name}.service"
    ).stdout
    return found + listed.split()


def is_active(name: str) -> bool:
    return (
        run("systemctl", "--user", "is-active", f"container@{name}", check=False).stdout.strip() == "active"
    )


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 7"], 7),
        (["sh", "-c", "trap 'kill -9 $$' TERM; sh -c 'kill -9 $$'"], 137),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_status_and_streams(name: str, command: list[str], status: int) -> None:
    result = execute("--rm", "--name", name, BUSYBOX, *command)
    assert result.returncode == status, result.stderr
    if status == 7:
        assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    elif status > 125 and status != 137:
        assert b"Error: " in result.stderr
    assert find_traces(name) == []


def test_what_is_wrong_before_the_start(name: str) -> None:
    assert execute("--no-such-option", BUSYBOX).returncode == 125
    result = execute("--rm", "--pull", "never", "--name", name, "localhost:5000/no-such:image", "true")
    assert result.returncode == 125 and b"Error: " in result.stderr
    result = execute("--rm", "--name", name, "--user", "nobody-such", BUSYBOX, "true")
    assert result.returncode == 125 and b"nobody-such" in result.stderr
    assert execute("--rm", "--restart", "always", BUSYBOX, "true").returncode == 125
    run("systemctl", "--user", "mask", f"container@{name}.service")
    result = execute("--rm", "--name", name, BUSYBOX, "true")
    run("systemctl", "--user", "unmask", f"container@{name}.service")
    assert result.returncode == 125 and b"masked" in result.stderr
    assert find_traces(name) == []


def test_a_pipe_is_the_containers_own(name: str) -> None:
    """Every byte of it arrives, and no process copies."""
    data = os.urandom(1 << 20) * 24
    feeder = subprocess.Popen(
        [*RUN, "--rm", "-i", "--name", name, BUSYBOX, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert feeder.stdin is not None and feeder.stdout is not None
    ours = os.readlink(f"/proc/self/fd/{feeder.stdin.fileno()}")
    wait_until(lambda: is_active(name), "it runs")
    pid = run("systemctl", "--user", "show", "--value", "-p", "MainPID", f"container@{name}").stdout.strip()
    inside = run(
        "nsenter", "-U", "--preserve-credentials", "-t", pid, "readlink", f"/proc/{pid}/fd/0"
    ).stdout.strip()
    assert inside == ours
    output, _ = feeder.communicate(data, timeout=60)
    assert feeder.returncode == 0
    assert hashlib.sha256(output).digest() == hashlib.sha256(data).digest()


def test_files_and_input_of_the_caller(name: str, tmp_path: Path) -> None:
    """A file is not handed in: it could be opened anew for writing, and would become the command's user's."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"precious\n")
    script = "cat; echo broken > /proc/self/fd/0; echo more"
    with source.open("rb") as stdin, target.open("wb") as stdout:
        subprocess.run(
            [*RUN, "--rm", "-i", "--user", "1000", "--name", name, BUSYBOX, "sh", "-c", script],
            stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, check=True, timeout=60,
        )  # fmt: skip
    assert source.read_bytes() == b"precious\n" and target.read_bytes() == b"precious\nmore\n"
    assert source.stat().st_uid == target.stat().st_uid == os.getuid()
    # More than two pipes hold: who waits for one direction must not keep the other waiting.
    source.write_bytes(os.urandom(1 << 20))
    with source.open("rb") as stdin, target.open("wb") as stdout:
        subprocess.run(
            [*RUN, "--rm", "-i", BUSYBOX, "cat"], stdin=stdin, stdout=stdout, check=True, timeout=60
        )
    assert source.read_bytes() == target.read_bytes()
    # Without -i there is nothing to read.
    assert execute("--rm", BUSYBOX, "cat", stdin=b"unseen").stdout == b""
    # What opens its output by name, as another user.
    assert execute("--rm", "-u", "1000", BUSYBOX, "sh", "-c", "echo x > /dev/stdout").stdout == b"x\n"


def test_detached(name: str) -> None:
    result = execute("-d", "--rm", "--name", name, BUSYBOX, "sh", "-c", "echo written; exec sleep 1000")
    identity = result.stdout.decode().strip()
    assert result.returncode == 0 and len(identity) == 64
    wait_until(lambda: "written" in run("usercontainer", "logs", name).stdout, "its line is in the journal")
    assert identity[:12] in run("usercontainer", "ps").stdout
    run("usercontainer", "stop", "-t", "0", identity)
    wait_until(lambda: find_traces(name) == [], "nothing of it is left")


def has_run(name: str, times: int) -> bool:
    return run_inside(name, "cat", "/runs").count(b"run\n") == times


@pytest.mark.parametrize("network", ["none", "pasta"])
def test_a_restart_is_no_end(name: str, network: str) -> None:
    """Neither systemd's nor ours removes it or forgets what it has written; the stop after it does."""
    script = "echo run >> /runs; exec sleep 1000"
    words = ("-d", "--rm", "--stop-timeout", "0", "--network", network, "--name", name)
    assert execute(*words, BUSYBOX, "sh", "-c", script).returncode == 0
    unit = f"container@{name}.service"
    ways = (
        ("systemctl", "--user", "restart", unit),
        ("systemctl", "--user", "try-restart", unit),
        ("usercontainer", "restart", name),
        ("usercontainer", "restart", "-t", "0", name),
    )
    for count, way in enumerate(ways, start=2):
        run(*way)
        assert is_active(name), way
        wait_until(partial(has_run, name, count), f"run {count}")
    run("usercontainer", "stop", "-t", "0", name)
    wait_until(lambda: find_traces(name) == [], "nothing of it is left")


def test_a_restart_under_a_command_that_waits(name: str) -> None:
    """Its streams are lent anew, and the end that it waits for is the one that is no restart."""
    script = "echo ready; read line; echo got $line; exit 5"
    process = subprocess.Popen(
        [*RUN, "--rm", "-i", "--stop-timeout", "0", "--name", name, BUSYBOX, "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    run("systemctl", "--user", "restart", f"container@{name}.service")
    assert process.stdout.readline() == b"ready\n"
    assert process.communicate(b"word\n", timeout=60)[0] == b"got word\n" and process.returncode == 5
    assert find_traces(name) == []


def test_detached_with_a_terminal_and_open_input(name: str) -> None:
    """The shell neither ends nor is typed on; what it writes is in the journal."""
    assert execute("-dit", "--name", name, "--env", "PS1=prompt:", BUSYBOX).returncode == 0
    assert run("usercontainer", "exec", name, "readlink", "/proc/1/fd/0").stdout.startswith("/dev/pts/")
    execute_in = ("usercontainer", "exec", name, "sh", "-c", "echo line > /proc/1/fd/1")
    run(*execute_in)
    wait_until(lambda: "line" in run("usercontainer", "logs", name).stdout, "its line is in the journal")
    assert is_active(name)
    result = run(
        "usercontainer", "run", "-di", "--replace", "--network", "none", "--name", name, BUSYBOX, "cat"
    )
    assert len(result.stdout.strip()) == 64 and is_active(name)


def test_signals_reach_init(name: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        script = f"trap 'echo got; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
        process = subprocess.Popen(
            [*RUN, "--rm", "--name", name, BUSYBOX, "sh", "-c", script], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == b"got\n" and process.returncode == 9


def test_a_killed_command_leaves_nothing(name: str) -> None:
    process = subprocess.Popen(
        [*RUN, "--rm", "-i", "--name", name, BUSYBOX, "sh", "-c", "echo ready; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert (
        process.stdout is not None and process.stdin is not None and process.stdout.readline() == b"ready\n"
    )
    process.kill()
    process.wait()
    assert is_active(name)
    process.stdin.close()
    wait_until(lambda: find_traces(name) == [], "nothing of it is left")


def test_what_a_crash_has_left_is_swept_up(name: str) -> None:
    assert execute("-d", "--rm", "--name", name, BUSYBOX, "sleep", "1000").returncode == 0
    unit = f"container@{name}.service"
    # As if systemd, or the machine, had gone down: no clean-up runs.
    drop_in = RUNTIME.parent / "systemd" / "user" / f"{unit}.d"
    drop_in.mkdir()
    (drop_in / "50-test.conf").write_text("[Service]\nExecStopPost=\n")
    run("systemctl", "--user", "daemon-reload")
    run("systemctl", "--user", "kill", "--kill-whom=main", "--signal=KILL", unit)
    wait_until(lambda: not is_active(name), "it has ended")
    (drop_in / "50-test.conf").unlink()
    drop_in.rmdir()
    assert find_traces(name) != []
    assert execute("--rm", "--name", name, BUSYBOX, "true").returncode == 0
    assert find_traces(name) == []


def test_start_attached(name: str) -> None:
    run(
        "usercontainer",
        "create",
        "-i",
        "--network",
        "none",
        "--name",
        name,
        BUSYBOX,
        "sh",
        "-c",
        "cat; exit 3",
    )
    start = ["usercontainer", "start", "-ai", name]
    for line in (b"one\n", b"two\n"):
        result = subprocess.run(start, input=line, capture_output=True, check=False, timeout=60)
        assert (result.returncode, result.stdout) == (3, line), result.stderr
    run("systemctl", "--user", "start", f"container@{name}")
    result = subprocess.run(start, input=b"", capture_output=True, check=False, timeout=60)
    assert result.returncode == 125 and b"runs already" in result.stderr


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
            os.execvp(RUN[0], [*RUN, *words])
        self.seen = b""

    def expect(self, text: bytes) -> None:
        end = time.monotonic() + 30
        while text not in self.seen:
            if not select.select([self.master], [], [], end - time.monotonic())[0]:
                pytest.fail(f"{text!r} did not come: {self.seen!r}")
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                pytest.fail(f"{text!r} did not come: {self.seen!r}")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def modes(self) -> list[object]:
        return termios.tcgetattr(self.master)[:4]


def test_terminal(name: str) -> None:
    one = Terminal("-it", "--rm", "--name", name, "--env", "PS1=prompt:", BUSYBOX)
    before = one.modes()
    one.expect(b"prompt:")
    assert one.modes() != before
    one.type(b"stty size; echo $TERM; echo last''ly\n")
    one.expect(b"33 99\r\nxterm\r\nlastly\r\n")
    fcntl.ioctl(one.master, termios.TIOCSWINSZ, struct.pack("HHHH", 22, 77, 0, 0))
    os.kill(one.pid, signal.SIGWINCH)
    wait_until(lambda: resized(name, b"22 77"), "the size has changed")
    one.type(b"sleep 1000; echo status $?\n")
    one.expect(b"\r\n")
    wait_until(lambda: b"sleep" in run_inside(name, "ps"), "the command runs")
    one.type(b"\x03")
    one.expect(b"prompt:")
    one.type(b"exit 5\n")
    one.expect(b"exit 5\r\n")
    assert one.wait() == 5 and one.modes() == before
    assert find_traces(name) == []


def run_inside(name: str, *command: str) -> bytes:
    return run("usercontainer", "exec", name, *command).stdout.encode()


def resized(name: str, size: bytes) -> bool:
    return size in run_inside(name, "sh", "-c", "stty size < /proc/1/fd/0")


def test_end_of_file_at_a_terminal(name: str) -> None:
    one = Terminal("-it", "--rm", "--name", name, BUSYBOX, "cat")
    wait_until(lambda: is_active(name), "it runs")
    one.type(b"word\n\x04")
    one.expect(b"word\r\nword\r\n")
    assert one.wait() == 0


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_terminal_that_goes(name: str, how: str) -> None:
    """The container's goes with it: a shell ends, and its unit cleans up."""
    one = Terminal("-it", "--rm", "--name", name, "--env", "PS1=prompt:", BUSYBOX)
    one.expect(b"prompt:")
    if how == "closed":
        os.close(one.master)
    else:
        os.kill(one.pid, signal.SIGKILL)
    one.wait()
    wait_until(lambda: find_traces(name) == [], "nothing of it is left")


def test_ctrl_c_without_a_terminal_of_its_own(name: str) -> None:
    """The caller's stays his: the container has pipes, and Ctrl-C is a signal."""
    script = "test -t 1 || echo pipe; trap 'echo got; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    one = Terminal("--rm", "--name", name, BUSYBOX, "sh", "-c", script)
    one.expect(b"pipe\r\n")
    one.expect(b"ready\r\n")
    one.type(b"\x03")
    one.expect(b"got\r\n")
    assert one.wait() == 4


def test_replace_and_cidfile(name: str, tmp_path: Path) -> None:
    file = tmp_path / "id"
    assert execute("-d", "--name", name, BUSYBOX, "sleep", "1000").returncode == 0
    assert b"is taken" in execute("-d", "--name", name, BUSYBOX, "sleep", "1").stderr
    result = execute("--replace", "--cidfile", str(file), "--name", name, BUSYBOX, "hostname")
    assert result.stdout.decode().strip() == name and len(file.read_text()) == 64
