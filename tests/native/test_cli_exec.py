"""`usercontainer exec`: whose process it is, where it lives, what comes back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, SLEEPER, Container, defined, run, wait_until

EXEC = ("usercontainer", "exec")


@pytest.fixture(scope="module")
def target() -> Iterator[Container]:
    text = (
        f'image = "{BUSYBOX}"\ncommand = ["sleep", "100000"]\nnetwork = "none"\n'
        'environment = { FROM = "definition" }\nworking_directory = "/var"\n'
        "[security]\nno_new_privileges = true\ndrop_capabilities = ['NET_BIND_SERVICE']\n"
    )
    with defined("target", text) as one:
        one.start()
        yield one


def execute(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EXEC, *words], capture_output=True, text=True, check=False, timeout=60, input=stdin
    )


def output(*words: str) -> str:
    result = execute(*words)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_it_has_all_that_init_has(target: Container) -> None:
    facts = "grep -E '^(Cap|NoNew|Seccomp:|Uid|Gid|Groups)' /proc/{}/status; ls -l /proc/{}/ns | grep -o '[a-z]*:.*'"
    assert output(target.name, "sh", "-c", facts.replace("{}", "self")) == output(
        target.name, "sh", "-c", facts.replace("{}", "1")
    )
    assert "FROM=definition" in output(target.name, "env")
    assert output(target.name, "pwd") == "/var"


def test_no_descriptor_of_ours_gets_in(target: Container) -> None:
    for options in ((), ("-i",), ("-u", "www")):
        descriptors = output(*options, target.name, "sh", "-c", "cd /proc/self/fd; echo *").split()
        assert set(descriptors) <= {"0", "1", "2", "3"}  # 3: the shell's own look
        assert "memfd" not in output(*options, target.name, "ls", "-l", "/proc/self/fd")


def test_it_lives_in_the_units_cgroup(target: Container) -> None:
    """From a login session's scope, and from the user manager's own tree."""
    for prefix in ((), ("systemd-run", "--user", "--quiet", "--pipe", "--wait", "--collect")):
        process = subprocess.Popen(
            [*prefix, *EXEC, "-i", target.name, "sh", "-c", "echo ready; read x"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        procs = (target.cgroup / "container" / "cgroup.procs").read_text().split()
        # Init, the command and the crun that waits for it; not the usercontainer that the user started.
        names = sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in procs)
        assert len(procs) == 3 and "sleep" in names and "sh" in names, names
        assert str(process.pid) not in procs
        process.stdin.close()
        process.wait(timeout=60)
    assert output(target.name, "cat", "/proc/self/cgroup").splitlines()[-1] == "0::/"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
    ],
)
def test_status(target: Container, command: list[str], status: int) -> None:
    result = execute(target.name, *command)
    assert result.returncode == status, result.stderr
    assert bool(result.stderr) == (status in (126, 127))


def test_containers_that_do_not_run(container: Callable[..., Container]) -> None:
    one = container(SLEEPER)
    result = execute(one.name, "true")
    assert result.returncode == 125 and "the container does not run" in result.stderr
    one.start()
    one.stop()
    result = execute(one.name, "true")
    assert result.returncode == 125 and "the container does not run" in result.stderr
    assert execute("no-such-container", "true").returncode == 125


def test_files_are_not_handed_in(target: Container, tmp_path: Path) -> None:
    """They could be opened anew for writing, and crun would give them to the command's user."""
    source, output_file = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"precious\n")
    script = "cat; echo broken > /proc/self/fd/0; echo more > /dev/stdout"
    for options in ((), ("-u", "1000")):
        with source.open("rb") as stdin, output_file.open("wb") as stdout:
            subprocess.run(
                [*EXEC, "-i", *options, target.name, "sh", "-c", script],
                stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, check=True, timeout=60,
            )  # fmt: skip
        assert source.read_bytes() == b"precious\n" and output_file.read_bytes() == b"precious\nmore\n"
        assert source.stat().st_uid == output_file.stat().st_uid == os.getuid()


def test_standard_input(target: Container) -> None:
    data = "line\n" * 50000
    assert execute("-i", target.name, "cat", stdin=data).stdout == data
    assert execute(target.name, "cat", stdin=data).stdout == ""
    result = execute(target.name, "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_environment_directory_and_user(target: Container, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("B=file\nC=file\n")
    words = output(
        *(
            "-e",
            "A=1 2",
            "-e",
            "HOME_OF_CALLER",
            "--env-file",
            str(tmp_path / "env"),
            "-e",
            "B=own",
            "-w",
            "/tmp",
        ),
        *(target.name, "sh", "-c", "echo $A/$B/$C/$FROM; pwd"),
    )
    assert words == "1 2/own/file/definition\n/tmp"
    assert output("-u", "www", target.name, "id") == "uid=1000(www) gid=1000(www) groups=1000(www)"
    assert output("-u", "1000:65534", target.name, "sh", "-c", "id -u; id -g") == "1000\n65534"
    assert output(
        "-u", "www", target.name, "sh", "-c", "echo $HOME; grep CapEff /proc/self/status"
    ).split() == [
        *("/www", "CapEff:", "0000000000000000"),
    ]
    result = execute("-u", "alice", target.name, "true")
    assert result.returncode == 125 and 'no user "alice"' in result.stderr


def test_the_hosts_accounts_are_out_of_reach(target: Container) -> None:
    """A container that points /etc/passwd at the host's does not get its users."""
    for aim in ("../../../../../../etc/passwd", "/proc/1/root/etc/passwd", "/etc/shadow", "/dev/zero"):
        output(target.name, "sh", "-c", f"cp -n /etc/passwd /root/passwd; ln -sf {aim} /etc/passwd")
        try:
            assert execute("-u", "alice", target.name, "true").returncode == 125
        finally:
            output(target.name, "sh", "-c", "rm /etc/passwd; cp /root/passwd /etc/passwd")
    assert execute("-u", "www", target.name, "true").returncode == 0


def test_signals_reach_the_command(target: Container) -> None:
    for number, status in ((signal.SIGTERM, 3), (signal.SIGINT, 4)):
        script = "trap 'exit 3' TERM; trap 'exit 4' INT; echo ready; while :; do sleep 0.05; done"
        process = subprocess.Popen(
            [*EXEC, target.name, "sh", "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=60) == status


def test_detached(target: Container) -> None:
    script = "while ! test -e /tmp/go; do sleep 0.1; done; touch /tmp/detached"
    assert execute("-d", target.name, "sh", "-c", script).stdout == ""
    execute(target.name, "touch", "/tmp/go")
    wait_until(
        lambda: execute(target.name, "test", "-e", "/tmp/detached").returncode == 0, "the command ends"
    )
    assert execute("-d", target.name, "no-such-program").returncode == 127


def test_a_terminal_that_is_none(target: Container) -> None:
    result = execute("-it", target.name, "true", stdin="")
    assert result.returncode == 125 and "not a terminal" in result.stderr


def test_many_at_once(target: Container) -> None:
    processes = [
        subprocess.Popen([*EXEC, target.name, "sh", "-c", f"sleep 0.2; exit {number}"])
        for number in range(20)
    ]
    assert [process.wait(timeout=60) for process in processes] == list(range(20))


@contextmanager
def terminal(rows: int, columns: int, *words: str) -> Iterator[tuple[int, int]]:
    """Run the command with a terminal of its own; yields its process and our end."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(EXEC[0], [*EXEC, *words])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield pid, fd
    finally:
        os.close(fd)


def read_until(fd: int, wanted: str, timeout: float = 60) -> str:
    text = ""
    end = time.monotonic() + timeout
    while wanted not in text:
        left = end - time.monotonic()
        ready = select.select([fd], [], [], max(0, left))[0]
        if not ready:
            pytest.fail(f"no {wanted!r} in {text!r}")
        try:
            text += os.read(fd, 4096).decode(errors="replace")
        except OSError:
            pytest.fail(f"closed before {wanted!r}: {text!r}")
    return text


def test_a_terminal(target: Container) -> None:
    with terminal(33, 101, "-it", target.name, "sh") as (pid, fd):
        read_until(fd, "# ")
        os.write(fd, b"echo $(stty size) $TERM $(tty)\n")
        read_until(fd, "33 101 xterm /dev/pts/")
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 55, 0, 0))
        os.write(fd, b"until stty size | grep '44 55'; do sleep 0.1; done\n")
        read_until(fd, "44 55\r\n")
        os.write(fd, b"echo soon''; sleep 4242; echo status $?\n")
        read_until(fd, "soon\r\n")
        wait_until(lambda: "sleep 4242" in output(target.name, "ps"), "it sleeps")
        os.write(fd, b"\x03")
        read_until(fd, "# ")
        os.write(fd, b"exit 5\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


def test_a_terminal_that_goes_away(target: Container) -> None:
    with terminal(24, 80, "-it", target.name, "sh", "-c", "echo ready; exec sleep 4321") as (pid, fd):
        read_until(fd, "ready")
    os.waitpid(pid, 0)
    wait_until(
        lambda: run("pgrep", "-f", "sleep 4321", check=False).returncode == 1,
        "the command ends with its terminal",
    )
