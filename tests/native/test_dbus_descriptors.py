"""What comes and goes as file descriptors: logs, commands, terminals, archives, passwords."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import tarfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

from tests.support.bus import (
    CONTAINER,
    IMAGE,
    JOB,
    MANAGER,
    NAME,
    ROOT,
    call,
    call_manager,
    finish_job,
    path_of,
    read,
)
from tests.support.containers import BUSYBOX, Container, run, wait_until
from tests.support.fakeregistry import build_tar, file

Make = Callable[..., Container]
SLEEPER = f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "echo first; sleep 1000"]\nnetwork = "none"\nstop_timeout = 0\n'
PATIENCE = 60.0  # seconds for anything that is waited for


pytestmark = pytest.mark.usefixtures("bus_image", "no_logins")


class Client:
    """A program on the bus that can pass descriptors."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus

    async def call(
        self, path: str, interface: str, member: str, signature: str, body: list[Any], fds: list[int]
    ) -> Message:
        message = Message(
            destination=NAME,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
            unix_fds=fds,
        )
        try:
            reply = await asyncio.wait_for(self.bus.call(message), PATIENCE)
        except TimeoutError:
            pytest.fail(f"waited {PATIENCE} s in vain: the answer to {member}")
        assert reply is not None
        return reply

    async def finish(self, job: str) -> dict[str, Any]:
        return await asyncio.to_thread(finish_job, job)


def with_client(test: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bus = await MessageBus(negotiate_unix_fd=True).connect()
        try:
            await test(Client(bus))
        finally:
            bus.disconnect()

    asyncio.run(main())


async def read_some(fd: int, what: str, count: int = 100) -> bytes:
    """Read what comes next, b"" at the end. In no thread: one that reads for ever cannot be ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    end = time.monotonic() + PATIENCE
    while not poller.poll(0):
        if time.monotonic() > end:
            pytest.fail(f"waited {PATIENCE} s in vain: {what}")
        await asyncio.sleep(0.01)
    return os.read(fd, count)


async def read_all(fd: int, what: str) -> bytes:
    """Read to the end, and close."""
    data = b""
    while more := await read_some(fd, f"{what}, after {data[-200:]!r}", 65536):
        data += more
    os.close(fd)
    return data


def test_logs_come_on_a_pipe(container: Make) -> None:
    one = container(SLEEPER)
    one.start()
    wait_until(lambda: "first" in one.journal(), "the line")

    async def test(client: Client) -> None:
        reply = await client.call(path_of(one), CONTAINER, "Logs", "a{sv}", [{}], [])
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        assert await read_all(reply.unix_fds[0], "the log and its end") == b"first\n"
        reply = await client.call(
            path_of(one), CONTAINER, "Logs", "a{sv}", [{"follow": Variant("b", True)}], []
        )
        follower = reply.unix_fds[0]
        assert await read_some(follower, "the first line of the log") == b"first\n"
        one.stop()
        assert await read_all(follower, "the end of the followed log") == b""

    with_client(test)


def count_followers() -> int:
    return run("pgrep", "-fc", "usercontainer logs --follow", check=False).stdout.strip() != "0"


def test_followers_go_with_their_client(container: Make) -> None:
    one = container(SLEEPER)
    one.start()

    async def test(client: Client) -> None:
        options = {"follow": Variant("b", True)}
        reply = await client.call(path_of(one), CONTAINER, "Logs", "a{sv}", [options], [])
        assert reply.unix_fds
        os.close(reply.unix_fds[0])

    with_client(test)
    wait_until(lambda: not count_followers(), "the follower is gone")


def test_a_command_with_descriptors(container: Make) -> None:
    one = container(SLEEPER)
    one.start()

    async def test(client: Client) -> None:
        pipes = [os.pipe() for _ in range(3)]
        options = {"environment": Variant("as", ["X=42"]), "working-directory": Variant("s", "/tmp")}
        command = ["sh", "-c", "read line; echo $line $X $PWD; echo bad >&2; exit 3"]
        fds = [pipes[0][0], pipes[1][1], pipes[2][1]]
        reply = await client.call(
            path_of(one), CONTAINER, "Exec", "ashhha{sv}", [command, 0, 1, 2, options], fds
        )
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        for fd in fds:
            os.close(fd)
        os.write(pipes[0][1], b"hello\n")
        os.close(pipes[0][1])
        assert await read_all(pipes[1][0], "the command's output and its end") == b"hello 42 /tmp\n"
        assert await read_all(pipes[2][0], "the command's errors and their end") == b"bad\n"
        found = await client.finish(reply.body[0])
        assert (found["State"], found["Result"]) == ("done", {"exit-status": 3})

    with_client(test)


def test_a_command_goes_with_its_client(container: Make) -> None:
    one = container(SLEEPER)
    one.start()

    async def test(client: Client) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        command = ["sleep", "1234"]
        reply = await client.call(
            path_of(one), CONTAINER, "Exec", "ashhha{sv}", [command, 0, 1, 2, {}], [null, null, null]
        )
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        os.close(null)
        await asyncio.to_thread(wait_until, lambda: "1234" in processes(one), "it runs")

    with_client(test)
    wait_until(lambda: "1234" not in processes(one), "it is gone")


def processes(one: Container) -> str:
    return run("usercontainer", "exec", one.name, "ps").stdout


def test_a_terminal(container: Make) -> None:
    one = container(SLEEPER)
    one.start()

    async def test(client: Client) -> None:
        options = {"rows": Variant("u", 33), "columns": Variant("u", 99)}
        reply = await client.call(
            path_of(one),
            CONTAINER,
            "OpenPTY",
            "asa{sv}",
            [["sh", "-c", "stty size; read x; exit 5"], options],
            [],
        )
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        terminal = reply.unix_fds[0]
        shown = b""
        while b"99" not in shown:
            shown += await read_some(terminal, f"the terminal's size, after {shown!r}")
        assert b"33 99" in shown
        os.write(terminal, b"\n")
        found = await client.finish(reply.body[1])
        assert found["Result"] == {"exit-status": 5}
        os.close(terminal)

    with_client(test)


def test_an_image_goes_out_and_comes_back() -> None:
    (path,) = call_manager("GetImage", "sa{sv}", BUSYBOX, "0")
    own = read(path, IMAGE, "Id")

    async def test(client: Client) -> None:
        archive = os.memfd_create("archive")
        reply = await client.call(path, IMAGE, "Save", "ha{sv}", [0, {}], [archive])
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        found = await client.finish(reply.body[0])
        assert found["State"] == "done", found
        assert os.fstat(archive).st_size > 100_000
        run("usercontainer", "rmi", "-f", BUSYBOX)
        os.lseek(archive, 0, os.SEEK_SET)
        reply = await client.call(ROOT, MANAGER, "Load", "ha{sv}", [0, {}], [archive])
        found = await client.finish(reply.body[0])
        assert found["State"] == "done", found
        assert found["Result"]["images"] == [own]
        os.close(archive)

    with_client(test)


def test_a_container_is_exported(container: Make) -> None:
    one = container(SLEEPER)
    one.start()

    async def test(client: Client) -> None:
        archive = os.memfd_create("archive")
        reply = await client.call(path_of(one), CONTAINER, "Export", "ha{sv}", [0, {}], [archive])
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        found = await client.finish(reply.body[0])
        assert found["State"] == "done", found
        os.lseek(archive, 0, os.SEEK_SET)
        with os.fdopen(archive, "rb") as file, tarfile.open(fileobj=file) as tar:
            assert "bin/busybox" in tar.getnames()

    with_client(test)


def test_files_are_copied_and_committed(container: Make) -> None:
    one = container(SLEEPER)
    one.start()
    name = f"localhost/committed-{os.urandom(3).hex()}:1"
    path = path_of(one)

    async def test(client: Client) -> None:
        async def finish(
            member: str, signature: str, body: list[object], fds: list[int]
        ) -> dict[str, object]:
            reply = await client.call(path, CONTAINER, member, signature, body, fds)
            assert reply.message_type is MessageType.METHOD_RETURN, reply.body
            return dict(await client.finish(reply.body[0]))

        archive = os.memfd_create("archive")
        os.write(archive, build_tar(file("hello", b"hello", uid=5)))
        os.lseek(archive, 0, os.SEEK_SET)
        found = await finish("CopyIn", "hsa{sv}", [0, "/opt", {}], [archive])
        assert found["ErrorName"] == "org.usercontainer1.Error.NoSuchFile", found
        os.lseek(archive, 0, os.SEEK_SET)
        options = {"archive": Variant("b", True)}
        found = await finish("CopyIn", "hsa{sv}", [0, "/etc", options], [archive])
        assert found["State"] == "done", found
        os.ftruncate(archive, 0)
        os.lseek(archive, 0, os.SEEK_SET)
        found = await finish("CopyOut", "sha{sv}", ["/etc/hello", 0, {}], [archive])
        assert found["State"] == "done", found
        os.lseek(archive, 0, os.SEEK_SET)
        with os.fdopen(archive, "rb") as stream, tarfile.open(fileobj=stream) as tar:
            assert tar.getmember("hello").uid == 5
        changes = os.memfd_create("changes")
        found = await finish("Diff", "ha{sv}", [0, {}], [changes])
        assert os.pread(changes, 1000, 0) == b"C /etc\0A /etc/hello\0"
        os.close(changes)
        found = await finish("Commit", "sa{sv}", [name, {"changes": Variant("as", ["CMD true"])}], [])
        assert found["State"] == "done", found
        assert str(found["Result"]["image"]).startswith("sha256:")  # type: ignore[index]
        found = await finish("Commit", "sa{sv}", [name, {"format": Variant("s", "x")}], [])
        assert found["ErrorName"] == "org.usercontainer1.Error.InvalidArgument"

    try:
        with_client(test)
    finally:
        assert run("usercontainer", "rmi", name, check=False).returncode == 0


def test_an_image_is_pushed() -> None:
    (path,) = call_manager("GetImage", "sa{sv}", BUSYBOX, "0")
    name = f"localhost:5000/pushed-{os.urandom(3).hex()}:1"

    async def test(client: Client) -> None:
        reply = await client.call(path, IMAGE, "Push", "sa{sv}", [name, {}], [])
        found = await client.finish(reply.body[0])
        assert found["State"] == "done", found
        assert found["Result"]["reference"] == name

    with_client(test)
    assert run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}").returncode == 0


def test_a_password_comes_on_a_descriptor() -> None:
    secret = f"secret-{os.urandom(4).hex()}"

    async def test(client: Client) -> None:
        reader, writer = os.pipe()
        os.write(writer, f"{secret}\n".encode())
        os.close(writer)
        # The machine's registry asks nobody who he is: every login is good.
        reply = await client.call(
            ROOT, MANAGER, "Login", "ssha{sv}", ["localhost:5000", "ann", 0, {}], [reader]
        )
        os.close(reader)
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        assert run("usercontainer", "login", "--get-login", "localhost:5000").stdout == "ann\n"
        reply = await client.call(ROOT, MANAGER, "Logout", "sa{sv}", ["localhost:5000", {}], [])
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        reply = await client.call(ROOT, MANAGER, "Logout", "sa{sv}", ["localhost:5000", {}], [])
        assert reply.error_name == "org.usercontainer1.Error.NoSuchLogin"

    with_client(test)
    journal = run("journalctl", "--user", "-u", "usercontainerd", "-o", "cat").stdout
    assert secret not in journal


def test_nobody_waits_for_a_password_of_who_has_left() -> None:
    reader, writer = os.pipe()

    async def test(client: Client) -> None:
        body = ["localhost:5000", "ann", 0, {}]
        pending = asyncio.create_task(client.call(ROOT, MANAGER, "Login", "ssha{sv}", body, [reader]))
        await asyncio.to_thread(wait_until, lambda: logins_underway() != "0", "it waits")
        pending.cancel()

    with_client(test)
    wait_until(lambda: logins_underway() == "0", "it is gone")
    os.close(reader)
    os.close(writer)


def logins_underway() -> str:
    return run("pgrep", "-fc", '"operation": "login"', check=False).stdout.strip()


def test_a_pull_is_cancelled() -> None:
    (job,) = call_manager("Pull", "sa{sv}", "localhost:5000/big-or-not:latest", "0")
    call(job, JOB, "Cancel", "a{sv}", "0")
    assert finish_job(job)["State"] in ("cancelled", "failed")


def test_one_who_floods_and_never_reads_holds_up_nobody() -> None:
    address = os.environ["DBUS_SESSION_BUS_ADDRESS"]
    flood = (
        "import asyncio, sys\n"
        "from usercontainerd.daemon.connection import Message, connect_bus\n"
        "async def main():\n"
        "    bus = await connect_bus(sys.argv[1])\n"
        "    asyncio.get_running_loop().remove_reader(bus._fd)\n"
        "    for number in range(20000):\n"
        "        bus.send(Message('org.usercontainer1', '/org/usercontainer1', 'org.usercontainer1.Manager',\n"
        "                         'ListContainers', signature='a{sv}', body=[{}]))\n"
        "        if number % 200 == 0:\n"
        "            await asyncio.sleep(0)\n"
        "    print('sent', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(["python3", "-c", flood, address], stdout=-1, stderr=-3, text=True) as flooder:
        assert flooder.stdout is not None
        try:
            poller = select.poll()
            poller.register(flooder.stdout, select.POLLIN)
            assert poller.poll(PATIENCE * 1000), "the flooder has not sent everything"
            assert flooder.stdout.readline() == "sent\n"
            for _ in range(20):
                assert read(ROOT, MANAGER, "Version")
        finally:
            flooder.kill()
    assert call_manager("ListContainers", "a{sv}", "0")


def test_systemd_hears_the_service_and_not_what_it_runs(container: Make) -> None:
    """Its own state is told; of a child's words systemd would complain, and take none."""
    one = container(SLEEPER)
    one.start()

    async def test(client: Client) -> None:
        reply = await client.call(
            path_of(one), CONTAINER, "Logs", "a{sv}", [{"follow": Variant("b", True)}], []
        )
        assert await read_some(reply.unix_fds[0], "the first line, from a child that runs") == b"first\n"
        show = ("systemctl", "--user", "show", "usercontainerd", "-P")
        assert run(*show, "StatusText").stdout == "Answering\n"
        pid = run(*show, "MainPID").stdout.strip()
        assert b"NOTIFY_SOCKET=" in Path(f"/proc/{pid}/environ").read_bytes()
        children = run("pgrep", "-P", pid).stdout.split()
        assert children
        for child in children:
            assert b"NOTIFY_SOCKET=" not in Path(f"/proc/{child}/environ").read_bytes()
        os.close(reply.unix_fds[0])

    with_client(test)
