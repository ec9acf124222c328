"""``usercontainer exec``: a further process is as confined as the container's first."""

from __future__ import annotations

import ctypes
import json
import os
import pty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import Container, defined, run, wait_until
from tests.support.fakeregistry import file, member
from tests.support.images import ImageMaker, directory, symlink
from tests.support.probes import PYTHON, list_mounts, render_definition

Make = Callable[..., Container]

# Registries and services of other tests answer in threads; what is forked here execs at once.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

KEYCTL, ADD_KEY = (250, 248) if os.uname().machine == "x86_64" else (219, 217)
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3


@dataclass
class Pair:
    """What the container's init and a later process of it found."""

    first: dict[str, Any]
    later: dict[str, Any]
    container: Container
    output: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    output = tmp_path_factory.mktemp("exec")
    start = PYTHON[-1] + "; import time; time.sleep(1000)"
    command = [*PYTHON[:-1], start, "facts", "/out/first"]
    with defined("exec", render_definition(command, list_mounts(output), "stop_timeout = 0\n")) as container:
        container.start()
        wait_until((output / "first").exists, "init has looked around")
        run("usercontainer", "exec", container.name, *PYTHON, "facts", "/out/later")
        first, later = (json.loads((output / name).read_text()) for name in ("first", "later"))
        yield Pair(first, later, container, output)


@pytest.mark.parametrize(
    "key", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups"]
)
def test_same_privileges(pair: Pair, key: str) -> None:
    assert pair.later["status"][key] == pair.first["status"][key]


def test_same_namespaces_and_mounts(pair: Pair) -> None:
    assert pair.later["namespaces"] == pair.first["namespaces"]
    assert pair.later["mounts"] == pair.first["mounts"]
    assert pair.later["hidden"] == pair.first["hidden"]


def test_nothing_comes_along(pair: Pair) -> None:
    """No descriptor of the caller's but its three, no variable, no cgroup of its own."""
    assert set(pair.later["descriptors"]) == {"0", "1", "2"}
    assert pair.later["descriptors"]["0"] == "/dev/null"
    assert pair.later["environment"] == pair.first["environment"]
    assert "0::/" in pair.later["cgroup"].splitlines()


def call_key(number: int, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return int(result)


def test_keys_of_the_callers_session_stay_outside(pair: Pair) -> None:
    """The caller's session keyring is inherited by its children, and must not be by the container's process."""
    secret = b"usercontainerd-session-key"
    script = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall.restype = ctypes.c_long; "
        f"found = libc.syscall(ctypes.c_long({KEYCTL}), ctypes.c_long(10), ctypes.c_long(-3), b'user', "
        f"{secret!r}, ctypes.c_long(0)); print('found' if found > 0 else 'none')"
    )
    python = ["/usr/bin/python3", "-ISBc", script]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        call_key(KEYCTL, ctypes.c_long(JOIN_SESSION_KEYRING), None)
        call_key(ADD_KEY, b"user", secret, b"x", ctypes.c_long(1), ctypes.c_long(SESSION_KEYRING))
        if os.fork() == 0:
            os.execv(python[0], python)
        os.wait()
        os.execvp("usercontainer", ["usercontainer", "exec", pair.container.name, *python])
    os.close(writer)
    with open(reader, encoding="ascii") as answers:
        assert answers.read().split() == ["found", "none"]
    os.waitpid(pid, 0)


TERMINAL = """
import fcntl, os, termios
for fd in (0, 1, 2):
    for request in (termios.TIOCSTI, termios.TIOCSCTTY):
        try:
            fcntl.ioctl(fd, request, b"x")
            print("worked", fd, request)
        except OSError:
            pass
try:
    os.open("/dev/tty", os.O_RDWR)
    print("opened")
except OSError:
    pass
print("done", os.readlink("/proc/self/fd/1"))
"""


@pytest.mark.parametrize(("options", "closed"), [([], True), (["-i"], True), (["-t"], False)])
def test_callers_terminal_cannot_be_typed_into(pair: Pair, options: list[str], closed: bool) -> None:
    """TIOCSTI puts characters into a terminal as if somebody had typed them; with -t it is the container's own."""
    pid, terminal = pty.fork()
    if pid == 0:
        script = ["/usr/bin/python3", "-ISBc", TERMINAL]
        os.execvp("usercontainer", ["usercontainer", "exec", *options, pair.container.name, *script])
    said = b""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:
        pass  # the other end is closed
    os.waitpid(pid, 0)
    os.close(terminal)
    assert (b"done pipe:" if closed else b"done /dev/pts") in said
    assert (b"worked" not in said and b"opened" not in said) == closed


THIEF = """
import os, sys
print("asked:", sys.stdin.readline().strip() if "ask" in sys.argv else "nothing", flush=True)
print("to the errors", file=sys.stderr, flush=True)
if os.fork() == 0:
    for fd in (0, 1, 2):
        try:
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            if os.isatty(again):
                open("/out/stolen", "wb").close()
        except OSError:
            continue
    os._exit(0)
os.wait()
sys.exit(5)
"""


@pytest.mark.parametrize("options", [[], ["-i"]])
def test_callers_terminal_cannot_be_read(pair: Pair, options: list[str]) -> None:
    """What was typed for the command arrives, but there is no terminal to open anew and to listen at."""
    pid, terminal = pty.fork()
    if pid == 0:
        script = ["/usr/bin/python3", "-ISBc", THIEF, *(["ask"] if options else [])]
        os.execvp("usercontainer", ["usercontainer", "exec", *options, pair.container.name, *script])
    os.write(terminal, b"an answer\n")
    said = b""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:
        pass  # the other end is closed
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)
    assert (b"asked: an answer" if options else b"asked: nothing") in said
    assert b"to the errors" in said
    assert not (pair.output / "stolen").exists()


def test_command_that_is_the_runtime_itself(container: Make, images: ImageMaker) -> None:
    """CVE-2019-5736: a command that leads to /proc/self/exe makes the runtime run itself within."""
    crun = Path("/usr/bin/crun")
    before = crun.read_bytes()
    image = images.add(
        "itself", file("bin/itself", b"#!/proc/self/exe\n", mode=0o755), symlink("bin/link", "/proc/self/exe")
    )
    one = container(f'image = "{image}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n')
    one.start()
    for command in ("/bin/itself", "/bin/link", "/proc/self/exe"):
        result = run("usercontainer", "exec", one.name, command, "--version", check=False)
        assert "rundir" not in result.stdout, "the host's crun ran"
    assert crun.read_bytes() == before
    first = container(f'image = "{image}"\ncommand = ["/proc/self/exe", "--version"]\nnetwork = "none"\n')
    first.start(check=False)
    first.finish()
    assert crun.read_bytes() == before


def test_accounts_of_a_running_container_are_only_data(container: Make, images: ImageMaker) -> None:
    """A passwd that is a directory, a FIFO or a link to the host's: nobody is found, and nothing waits."""
    for number, node in enumerate(
        (directory("etc/passwd"), member("etc/passwd", b"6"), symlink("etc/passwd", "../../../../etc/passwd"))
    ):
        image = images.add(f"accounts-{number}", node)
        one = container(
            f'image = "{image}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'
        )
        one.start()
        result = run(
            "usercontainer", "exec", "-u", os.environ["USER"], one.name, "id", check=False, timeout=60
        )
        assert result.returncode != 0
        assert "no user" in result.stderr
        run("usercontainer", "exec", "-u", "1234", one.name, "true", timeout=60)
