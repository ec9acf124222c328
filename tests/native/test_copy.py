"""Files into containers and out of them: running or not, through volumes, and against containers that race."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, SLEEPER, Container, defined, run, wait_until
from tests.support.fakeregistry import build_tar, file, member

pytestmark = pytest.mark.usefixtures("bus_image")  # what does not run takes the image that is here
KEEPING = f'{SLEEPER}writable_layer = "keep"\n'


def copy(
    *words: str | Path, data: bytes | None = None, status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run ``cp``; it has to end with ``status``."""
    result = subprocess.run(
        ["usercontainer", "cp", *map(str, words)],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == status, result.stderr.decode()
    return result


def inside(one: Container, script: str) -> str:
    return run("usercontainer", "exec", one.name, "sh", "-c", script).stdout


@pytest.fixture(scope="module")
def running() -> Iterator[Container]:
    with defined("copied", f'{KEEPING}mounts = ["/vol"]\n') as one:
        one.start()
        yield one


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a bit of everything."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "file").write_bytes(os.urandom(300_000))
    (top / "sub" / "file").chmod(0o4750)
    os.link(top / "sub" / "file", top / "again")
    (top / "link").symlink_to("sub/file")
    with open(top / "sparse", "wb") as sparse:
        sparse.truncate(1 << 30)
    os.setxattr(top / "again", "user.note", b"hello")
    os.utime(top / "sub", (1_600_000_000, 1_600_000_000))
    return top


def test_there_and_back(running: Container, tree: Path, tmp_path: Path) -> None:
    copy(tree, f"{running.name}:/new")
    stat = "stat -c '%u:%g %a %h %s %Y' /new/sub/file /new/sub; readlink /new/link; stat -c %b /new/sparse"
    lines = inside(running, stat).splitlines()
    assert lines[0].startswith("0:0 4750 2 300000 ")
    assert lines[1].startswith("0:0 755 ")
    assert lines[1].endswith(" 1600000000")
    assert lines[2] == "sub/file"
    assert int(lines[3]) < 100
    inside(running, "chown 5:6 /new/again; mknod /new/pipe p")
    copy(f"{running.name}:/new", tmp_path / "back")
    back = tmp_path / "back"
    assert sorted(os.listdir(back)) == ["again", "link", "pipe", "sparse", "sub"]
    status = (back / "again").stat()
    # Ours, and no program that others could run as us.
    assert (status.st_uid, status.st_mode & 0o7777) == (os.getuid(), 0o750)
    assert status.st_ino == (back / "sub" / "file").stat().st_ino
    assert (back / "again").read_bytes() == (tree / "again").read_bytes()
    assert os.getxattr(back / "again", "user.note") == b"hello"
    assert (back / "sparse").stat().st_blocks < 100
    # The numbers are seen in an archive, and come back with -a.
    with tarfile.open(fileobj=io.BytesIO(copy(f"{running.name}:new", "-").stdout)) as archive:
        assert {(archive.getmember(name).uid, archive.getmember(name).gid) for name in ("new/again",)} == {
            (5, 6)
        }
    plain = build_tar(file("one", b"1", uid=7, gid=8), file("deep/two", b"2"))
    data = gzip.compress(plain)
    copy("-", f"{running.name}:/vol", data=data)
    for name, compressed in (("bzip2", bz2.compress(plain)), ("xz", lzma.compress(plain)), ("none", plain)):
        inside(running, f"mkdir /as-{name}")
        copy("-", f"{running.name}:/as-{name}", data=compressed)
        assert inside(running, f"cat /as-{name}/one /as-{name}/deep/two") == "12"
    copy("-a", "-", f"{running.name}:/new", data=data)
    found = inside(running, "stat -c %u:%g /vol/one /new/one /new/deep/two").split()
    assert found == ["0:0", "7:8", "0:0"]
    copy("-a", "-", f"{running.name}:/new", data=build_tar(file("x", uid=99_000_000)), status=125)


def test_mounts_are_seen_as_inside(running: Container, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("1.2.3.4 somewhere\n")
    inside(running, "echo kept > /vol/file; echo shm > /dev/shm/file; ln -sf /vol /elsewhere")
    copy(f"{running.name}:/elsewhere/file", tmp_path / "file")
    copy(f"{running.name}:/dev/shm/.", tmp_path / "shm")
    copy(f"{running.name}:/proc/uptime", tmp_path)
    copy(tmp_path / "hosts", f"{running.name}:/etc/hosts")  # something is mounted on it
    assert (tmp_path / "file").read_text() == "kept\n"
    assert (tmp_path / "shm" / "file").read_text() == "shm\n"
    assert len((tmp_path / "uptime").read_text().split()) == 2
    assert inside(running, "cat /etc/hosts") == "1.2.3.4 somewhere\n"
    for path, message in (
        ("/dev/null", "a device"),
        ("/proc/self/exe", "no such"),
        ("/none", "no such file"),
    ):
        error = copy(f"{running.name}:{path}", tmp_path / "x", status=125).stderr.decode()
        assert message in error
        assert f"{running.name}:{os.path.dirname(path)}" in error


def test_stopped(container: Callable[..., Container], tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = f'mounts = ["/vol", "{shared}:/shared:ro"]\n'
    one, other = container(f"{KEEPING}{mounts}"), container(f"{SLEEPER}{mounts}")
    (tmp_path / "file").write_text("x")
    copy(tmp_path / "file", f"{one.name}:/etc/made")
    copy(tmp_path / "file", f"{one.name}:/vol/made")
    assert "read-only" in copy(tmp_path / "file", f"{one.name}:/shared", status=125).stderr.decode()
    # What begins anew would lose it.
    assert "anew" in copy(tmp_path / "file", f"{other.name}:/etc/made", status=125).stderr.decode()
    (shared / "file").write_text("s")
    copy(f"{one.name}:/shared/file", tmp_path / "from-stopped")
    one.start()
    assert inside(one, "stat -c '%u %s' /etc/made /vol/made").split() == ["0", "1"] * 2
    # From one to the other.
    other.start()
    copy(f"{one.name}:/etc/made", f"{other.name}:/tmp")
    assert inside(other, "cat /tmp/made") == "x"
    inside(one, "echo last > /left")
    one.stop()
    copy(f"{one.name}:/left", tmp_path)
    assert (tmp_path / "left").read_text() == "last\n"


def test_before_the_first_start(tmp_path: Path) -> None:
    """What is made by `create`, with --rm, too, is copied into before it starts, and has it then."""
    (tmp_path / "file").write_text("x")
    for options in ((), ("--rm",)):
        name = f"created-{os.urandom(3).hex()}"
        words = ("--network", "none", "--stop-timeout", "0", BUSYBOX, "sleep", "1000")
        run("usercontainer", "create", "--name", name, *options, *words)
        try:
            copy(tmp_path / "file", f"{name}:/etc/made")
            run("usercontainer", "start", name)
            assert run("usercontainer", "exec", name, "cat", "/etc/made").stdout == "x"
            copy(f"{name}:/etc/made", tmp_path / "back")
            run("usercontainer", "stop", name)
        finally:
            run("usercontainer", "rm", "-f", "-i", name)
        assert run("usercontainer", "ps", "-aq", "--filter", f"name={name}").stdout == ""


def test_a_start_waits_for_a_copy(container: Callable[..., Container]) -> None:
    one = container(KEEPING)
    data = build_tar(file("whole", b"x" * 100_000))
    command = ["usercontainer", "cp", "-", f"{one.name}:/"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[:50_000])
        process.stdin.flush()
        lock = Path(os.path.expanduser("~/.local/share/usercontainerd/containers")) / one.name / "lock"
        upper = lock.parent / "layer" / "upper"
        wait_until(lambda: upper.is_dir() and os.listdir(upper), "the copy has begun")
        run("systemctl", "--user", "start", "--no-block", one.unit)
        wait_until(lambda: one.show("ActiveState") == "activating", "the start has begun")
        process.stdin.write(data[50_000:])
        process.stdin.close()
        assert process.wait(60) == 0
    one.start()
    assert inside(one, "wc -c < /whole").strip() == "100000"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_cancelled(running: Container, how: signal.Signals) -> None:
    """Nothing half-written stays, in the container or here."""
    inside(running, "rm -rf /cancelled; mkdir /cancelled; touch /cancelled/other")
    command = ["usercontainer", "cp", "-", f"{running.name}:/cancelled"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(build_tar(file("half", b"x" * 100_000))[:50_000])
        process.stdin.flush()
        wait_until(lambda: "usercontainer-cp" in inside(running, "ls -a /cancelled"), "the copy has begun")
        process.send_signal(how)
        assert process.wait(30) in (130, 143)
    assert inside(running, "ls -A /cancelled").split() == ["other"]


def test_hostile_archives(running: Container) -> None:
    inside(
        running,
        "mkdir -p /hostile/dir /usr/real; ln -sfn /usr/real /hostile/ours; rm -rf /stolen; mkdir /stolen",
    )
    inside(running, "ln -sfn /stolen /hostile/theirs; chown -h 1000:1000 /hostile/theirs")

    def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
        return member(name, kind, linkname=target)

    for entries in (
        [file("../stolen/x", b"x")],
        [link("l", "/stolen"), file("l/x", b"x")],
        [file("theirs/x", b"x")],
    ):
        copy("-", f"{running.name}:/hostile", data=build_tar(*entries), status=125)
    assert inside(running, "ls /stolen") == ""
    # A symlink of the container's root is followed, as docker does: /bin may be one.
    device = member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    result = copy("-", f"{running.name}:/hostile", data=build_tar(file("ours/x", b"x"), device))
    assert inside(running, "ls /usr/real") == "x\n"
    assert b"device node left out" in result.stderr
    copy("-", f"{running.name}:/hostile", data=b"no archive" * 100, status=125)


def test_racing_container(container: Callable[..., Container], tmp_path: Path) -> None:
    """While we copy, the container swaps a directory for a symlink: nothing ends up, or comes from, behind it."""
    shared, secret = tmp_path / "shared", tmp_path / "secret"
    for directory in (shared, secret, tmp_path / "in" / "a" / "b"):
        directory.mkdir(parents=True)
    for directory in (secret, tmp_path / "in" / "a" / "b"):
        for number in range(20):
            (directory / f"f{number}").write_text(f"of {directory.name}")
    one = container(f'{SLEEPER}mounts = ["{shared}:/shared"]\n')
    one.start()
    inside(one, "mkdir -p /d/a/b /stolen /shared/d/a/b; for i in 0 1 2 3 4; do echo mine > /d/a/b/f$i; done")
    inside(one, f"ln -s /stolen /link; ln -s {secret} /shared/link")
    race = (
        "while :; do for t in /d/a /shared/d/a; do"
        " mv $t/b $t/c; cp -P ${t%/d/a}/link $t/b; rm -f $t/b; mv $t/c $t/b; done; done"
    )
    run("usercontainer", "exec", "-d", one.name, "sh", "-c", race)
    before = {path.name: path.read_text() for path in secret.iterdir()}
    successes = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for words in (
            (f"{tmp_path}/in/.", f"{one.name}:/d"),
            (f"{tmp_path}/in/.", f"{one.name}:/shared/d"),
            (f"{one.name}:/d/.", f"{shared}/d"),
            (f"{one.name}:/shared/d", f"{tmp_path}/out"),
            (f"{shared}/d/.", f"{one.name}:/got"),
        ):
            result = subprocess.run(
                ["usercontainer", "cp", *words], capture_output=True, check=False, timeout=60
            )
            assert result.returncode in (0, 125), result.stderr
            successes += result.returncode == 0
    assert successes
    assert {path.name: path.read_text() for path in secret.iterdir()} == before
    # Its own mv moves the directories there, when a symlink that was copied is in their place.
    assert inside(one, "ls /stolen | grep -vE '^(b|c|link)$' || true") == ""
    assert run("grep", "-r", "of secret", f"{tmp_path}/out", check=False).stdout == ""
    assert inside(one, "grep -r 'of secret' /got || true") == ""


def test_a_full_disk(container: Callable[..., Container], tmp_path: Path) -> None:
    one = container(f'{SLEEPER}mounts = [{{ type = "tmpfs", target = "/small", size = "1M" }}]\n')
    one.start()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "big").write_bytes(b"x" * 2_000_000)
    error = copy(tmp_path / "tree", f"{one.name}:/small/new", status=125).stderr.decode()
    assert "No space left" in error
    assert "free some space" in error
    copy(tmp_path / "tree" / "big", f"{one.name}:/small/new", status=125)
    assert inside(one, "ls -A /small") == ""
