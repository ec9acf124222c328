"""The door for sandboxed applications: each sees and uses only the containers that name it, whatever it says it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, Container, read_journal, run, wait_until
from usercontainerd.daemon.logbook import CALLER_REFUSED, CONTAINER_ASKED

Make = Callable[..., Container]
MINE, OTHERS = "org.example.Mine", "org.example.Others"
NAME, PATH = "org.usercontainer1.Apps", "/org/usercontainer1/Apps"
# What a sandbox is to the daemon: a root directory with a description that its process cannot choose.
SANDBOX = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.getuid(), os.getgid()
assert libc.unshare(0x10000000 | 0x00020000) == 0, os.strerror(ctypes.get_errno())
for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
root = sys.argv[1]
for place in ("usr", "run", "lib", "lib64", "bin", "proc", "etc"):
    if os.path.islink(f"/{place}"):
        os.symlink(os.readlink(f"/{place}"), f"{root}/{place}")
    elif os.path.isdir(f"/{place}"):
        os.mkdir(f"{root}/{place}")
        assert libc.mount(f"/{place}".encode(), f"{root}/{place}".encode(), None, 0x5000, None) == 0, place
os.chroot(root)
os.chdir("/")
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in the sandbox of an application."""

    def run_inside(application: str, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        root = tmp_path / os.urandom(4).hex()
        root.mkdir()
        (root / ".flatpak-info").write_text(f"[Application]\nname={application}\n\n[Instance]\nname=no\n")
        return subprocess.run(
            [sys.executable, "-c", SANDBOX, str(root), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run_inside


def call(member: str, *words: str) -> tuple[str, ...]:
    return ("busctl", "--user", "call", NAME, PATH, NAME, member, *words)


@pytest.fixture
def mine(container: Make) -> Container:
    return container(
        f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'
        f'[desktop]\nallow = ["{MINE}"]\n'
    )


def test_an_application_uses_its_own_container(
    sandbox: Callable[..., subprocess.CompletedProcess[str]], mine: Container
) -> None:
    listed = sandbox(MINE, *call("ListContainers", "a{sv}", "0"))
    assert f'"{mine.name}" "created"' in listed.stdout, listed.stderr
    started = sandbox(MINE, *call("Start", "sa{sv}", mine.name, "0"), timeout=60)
    assert started.returncode == 0, started.stderr
    assert mine.show("ActiveState") == "active"
    entries = read_journal(f"USERCONTAINER_APP={MINE}", "USERCONTAINER_OPERATION=start", "-u", mine.unit)
    assert [entry["MESSAGE_ID"] for entry in entries] == [CONTAINER_ASKED]
    state = sandbox(MINE, *call("GetState", "sa{sv}", mine.name, "0"))
    assert '"running"' in state.stdout
    assert sandbox(MINE, *call("Stop", "sa{sv}", mine.name, "0")).returncode == 0
    assert mine.has_ended


def test_of_others_it_knows_nothing(
    sandbox: Callable[..., subprocess.CompletedProcess[str]], mine: Container
) -> None:
    assert sandbox(OTHERS, *call("ListContainers", "a{sv}", "0")).stdout == "a(sss) 0\n"
    refused = [
        sandbox(OTHERS, *call(member, "sa{sv}", name, "0")).stderr
        for member in ("Start", "Stop", "GetState")
        for name in (mine.name, "nothing-there")
    ]
    # The same words whether there is such a container or not.
    assert all(f"for {OTHERS}" in each for each in refused)
    assert mine.has_ended
    # The user is told what it has tried.
    entries = read_journal(f"USERCONTAINER_APP={OTHERS}", f"CONTAINER_NAME={mine.name}")
    assert {entry["MESSAGE_ID"] for entry in entries} == {CALLER_REFUSED}
    assert all(f"{OTHERS} must not use container {mine.name}" in entry["MESSAGE"] for entry in entries)


def test_the_door_leads_nowhere_else(
    sandbox: Callable[..., subprocess.CompletedProcess[str]], mine: Container
) -> None:
    for path in ("/org/usercontainer1", "/org/usercontainer1/container/x"):
        for interface in ("org.usercontainer1.Manager", "org.usercontainer1.Container"):
            done = run(
                *("busctl", "--user", "call", NAME, path, interface, "ListContainers", "a{sv}", "0"),
                check=False,
            )
            assert "no object" in done.stderr or "no interface" in done.stderr
    # The two names belong to two connections: whoever may talk to one cannot talk to the other.
    owners = [
        run(
            "busctl",
            "--user",
            "call",
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus",
            "GetNameOwner",
            "s",
            name,
        ).stdout
        for name in (NAME, "org.usercontainer1")
    ]
    assert owners[0] != owners[1]


def test_who_is_in_no_sandbox_is_refused(mine: Container) -> None:
    done = run(*call("ListContainers", "a{sv}", "0"), check=False)
    assert done.returncode != 0
    assert "sandboxed" in done.stderr


WATCH = """
import asyncio, sys
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus
async def main():
    bus = await MessageBus().connect()
    done = asyncio.Event()
    def take(message):
        if message.message_type is MessageType.SIGNAL and message.member == "StateChanged":
            print(*message.body[:2], flush=True)
            if message.body[1] == "exited":
                done.set()
    bus.add_message_handler(take)
    reply = await bus.call(Message(destination="org.usercontainer1.Apps", path="/org/usercontainer1/Apps",
        interface="org.usercontainer1.Apps", member="Watch", signature="a{sv}", body=[{}]))
    assert reply.message_type is MessageType.METHOD_RETURN, reply.body
    print("watching", flush=True)
    await asyncio.wait_for(done.wait(), 60)
asyncio.run(main())
"""


def test_an_application_is_told_of_its_own_only(tmp_path: Path, container: Make, mine: Container) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / ".flatpak-info").write_text(f"[Application]\nname={MINE}\n")
    other = container(f'image = "{BUSYBOX}"\ncommand = ["true"]\nnetwork = "none"\n')
    with subprocess.Popen(
        [sys.executable, "-c", SANDBOX, str(root), "python3", "-c", WATCH], stdout=-1, stderr=-1, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        first = watcher.stdout.readline()
        assert first == "watching\n", watcher.stderr.read()
        other.start(check=False)
        mine.start()
        out = ""
        while f"{mine.name} running" not in out and (line := watcher.stdout.readline()):
            out += line
        mine.stop()
        out += watcher.stdout.read()
    assert f"{mine.name} running" in out
    assert other.name not in out


def test_a_failure_is_shown_on_the_desktop(container: Make, tmp_path: Path) -> None:
    one = container(
        f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "exit 7"]\nnetwork = "none"\n[desktop]\nnotify = true\n'
    )
    shown = tmp_path / "shown"
    desktop = (
        "import asyncio, sys\n"
        "from dbus_next.aio import MessageBus\n"
        "from dbus_next.service import ServiceInterface, method\n"
        "class N(ServiceInterface):\n"
        "    def __init__(self): super().__init__('org.freedesktop.Notifications')\n"
        "    @method()\n"
        "    def Notify(self, a: 's', b: 'u', c: 's', d: 's', e: 's', f: 'as', g: 'a{sv}', h: 'i') -> 'u':\n"
        "        open(sys.argv[1], 'w').write(f'{d}|{e}'); return 1\n"
        "async def main():\n"
        "    bus = await MessageBus().connect()\n"
        "    bus.export('/org/freedesktop/Notifications', N())\n"
        "    await bus.request_name('org.freedesktop.Notifications')\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", desktop, str(shown)], stdout=-1, text=True) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        one.start(check=False)
        wait_until(lambda: shown.exists() and shown.read_text(), "the notification")
        daemon.kill()
    title, _, body = shown.read_text().partition("|")
    assert title == f"Container {one.name} failed"
    assert body.startswith("It ended with exit status 7.")
    # Without anybody to show it, nothing fails.
    one.start(check=False)
    wait_until(lambda: one.has_ended, "the end")
    unit = f"usercontainerd-failed@{one.name}.service"
    wait_until(
        lambda: run("systemctl", "--user", "show", "-P", "ActiveState", unit).stdout == "inactive\n", "it"
    )
    assert run("systemctl", "--user", "show", "-P", "Result", unit).stdout == "success\n"
