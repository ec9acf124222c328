"""The client against a server of a few lines, on a socket pair or a socket of its own."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidFormat, SystemdError
from usercontainerd.systemd import message as messages
from usercontainerd.systemd.bus import Bus, BusError, escape_object_path, parse_address
from usercontainerd.systemd.manager import Manager, UnitFailure, explain_failure
from usercontainerd.systemd.message import Message, measure_message, parse_message, render_message
from usercontainerd.systemd.wire import Variant

Handler = Callable[["Server", Message], None]


class Server(threading.Thread):
    """Accepts one client, and hands each of its messages to ``handler``."""

    def __init__(self, path: Path, handler: Handler, greeting: bytes | None = None) -> None:
        super().__init__(daemon=True)
        self.handler = handler
        self.greeting = greeting
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.address = f"unix:path={path}"
        self.received: list[Message] = []
        self.serial = 0
        self.start()

    def run(self) -> None:
        self.client, _ = self.listener.accept()
        self.buffer = b""
        self.fds: list[int] = []
        for _ in range(3):
            self.read_until(b"\r\n")
        identity = str(os.getuid()).encode().hex().encode()
        default = b"OK 0123\r\nAGREE_UNIX_FD\r\n" if identity else b""
        self.client.sendall(default if self.greeting is None else self.greeting)
        while self.fill():
            while (size := measure_message(self.buffer)) is not None and len(self.buffer) >= size:
                message = parse_message(self.buffer[:size], self.fds)
                self.buffer = self.buffer[size:]
                self.received.append(message)
                self.handler(self, message)

    def read_until(self, end: bytes) -> None:
        while end not in self.buffer:
            if not self.fill():
                return
        self.buffer = self.buffer.partition(end)[2]

    def fill(self) -> bool:
        try:
            data, ancillary, _, _ = self.client.recvmsg(4096, 1024)
        except OSError:
            return False
        for _, _, payload in ancillary:
            self.fds += array.array("i", payload)
        self.buffer += data
        return bool(data)

    def send(self, kind: int, fields: dict[int, Any], body: tuple[Any, ...] = ()) -> None:
        self.serial += 1
        data, fds = render_message(Message(kind, self.serial, fields, body))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.client.sendmsg([data], rights)

    def reply(self, call: Message, signature: str = "", *values: Any) -> None:
        fields = {messages.REPLY_SERIAL: call.serial, messages.SIGNATURE: signature}
        self.send(messages.METHOD_RETURN, fields, values)

    def fail(self, call: Message, name: str, text: str) -> None:
        fields = {messages.REPLY_SERIAL: call.serial, messages.ERROR_NAME: name, messages.SIGNATURE: "s"}
        self.send(messages.ERROR, fields, (text,))

    def signal(self, member: str, signature: str, *values: Any) -> None:
        fields = {
            messages.PATH: "/org/freedesktop/systemd1",
            messages.INTERFACE: "org.freedesktop.systemd1.Manager",
            messages.MEMBER: member,
            messages.SIGNATURE: signature,
        }
        self.send(messages.SIGNAL, fields, values)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(handler: Handler, greeting: bytes | None = None) -> Server:
        server = Server(tmp_path / f"socket{len(servers)}", handler, greeting)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.listener.close()
        if hasattr(server, "client"):
            server.client.close()


def echo(server: Server, call: Message) -> None:
    member = call.fields[messages.MEMBER]
    if member == "Fail":
        server.fail(call, "org.example.Bad", "It is bad.\n")
    elif member != "Silent":
        server.reply(call, call.fields.get(messages.SIGNATURE, ""), *call.body)


def test_call(serve: Callable[..., Server]) -> None:
    server = serve(echo)
    with Bus.connect(server.address, peer=True) as bus:
        assert bus.call("a.b", "/", "a.b", "Echo", "sa{sv}", "ä", {"k": Variant("u", 7)}) == (
            "ä",
            {"k": Variant("u", 7)},
        )
        with pytest.raises(BusError, match=r"It is bad$") as caught:
            bus.call("a.b", "/", "a.b", "Fail")
        assert caught.value.dbus_name == "org.example.Bad"
        with pytest.raises(SystemdError, match="no reply in time"):
            bus.call("a.b", "/", "a.b", "Silent", timeout=0.05)
        assert bus.call("a.b", "/", "a.b", "Echo", "s", "still there") == ("still there",)


def test_a_message_bus_wants_hello(serve: Callable[..., Server]) -> None:
    server = serve(lambda server, call: server.reply(call, "s", ":1.7"))
    Bus.connect(server.address).close()
    assert server.received[0].fields[messages.MEMBER] == "Hello"


def test_many_calls_in_one_go(serve: Callable[..., Server]) -> None:
    server = serve(echo)
    with Bus.connect(server.address, peer=True) as bus:
        requests = [("a.b", "/", "a.b", "Fail" if n == 300 else "Echo", "u", (n,)) for n in range(500)]
        replies = bus.try_all(requests)
        assert isinstance(replies.pop(300), BusError)
        assert replies == [(n,) for n in range(500) if n != 300]
        with pytest.raises(BusError):
            bus.call_all(requests)


def test_descriptors_both_ways(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(echo)
    with (tmp_path / "file").open("w") as file, Bus.connect(server.address, peer=True) as bus:
        (_, received) = bus.call("a.b", "/", "a.b", "Echo", "(sh)ah", ("x", file.fileno()), [file.fileno()])
        assert os.fstat(received[0]).st_ino == os.fstat(file.fileno()).st_ino
        os.close(received[0])


def test_signals_wait_their_turn(serve: Callable[..., Server]) -> None:
    def handler(server: Server, call: Message) -> None:
        server.signal("Early", "u", 1)
        server.signal("Wanted", "u", 2)
        server.reply(call)

    server = serve(handler)
    with Bus.connect(server.address, peer=True) as bus:
        bus.call("a.b", "/", "a.b", "Go")
        found = bus.wait_signal(lambda signal: signal.fields[messages.MEMBER] == "Wanted")
        assert found is not None
        assert found.body == (2,)
        assert bus.wait_signal(lambda _: True, timeout=0.05) is None


def test_calls_to_us_are_refused(serve: Callable[..., Server]) -> None:
    def handler(server: Server, call: Message) -> None:
        if call.kind == messages.METHOD_CALL:
            server.send(messages.METHOD_CALL, {messages.PATH: "/", messages.MEMBER: "Ping"})
            server.reply(call)

    server = serve(handler)
    with Bus.connect(server.address, peer=True) as bus:
        bus.call("a.b", "/", "a.b", "Go")
        bus.call("a.b", "/", "a.b", "Go")
    server.join(2)
    errors = [one for one in server.received if one.kind == messages.ERROR]
    assert errors[0].fields[messages.ERROR_NAME] == "org.freedesktop.DBus.Error.UnknownMethod"


@pytest.mark.parametrize("greeting", [b"REJECTED EXTERNAL\r\n", b"OK 1\r\nERROR\r\n", b"x" * 20000])
def test_no_welcome(serve: Callable[..., Server], greeting: bytes) -> None:
    server = serve(echo, greeting)
    with pytest.raises((SystemdError, InvalidFormat)):
        Bus.connect(server.address, peer=True, timeout=1)


def test_the_other_side_vanishes(serve: Callable[..., Server]) -> None:
    server = serve(lambda server, call: server.client.shutdown(socket.SHUT_RDWR))
    with Bus.connect(server.address, peer=True) as bus, pytest.raises(SystemdError, match=r"closed|broke"):
        bus.call("a.b", "/", "a.b", "Go")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SystemdError, match="No such file"):
        Bus.connect(f"unix:path={tmp_path}/none")
    with pytest.raises(SystemdError, match="not the address of a unix socket"):
        Bus.connect("tcp:host=localhost,port=1")


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("unix:path=/run/a%20b,guid=1", [b"/run/a b"]),
        ("unix:abstract=/tmp/x;unix:path=/y", [b"\0/tmp/x", b"/y"]),
        ("tcp:host=x", []),
        ("", []),
    ],
)
def test_address(address: str, targets: list[bytes]) -> None:
    assert parse_address(address) == targets


def test_object_path() -> None:
    assert escape_object_path("container@web-1.service") == "container_40web_2d1_2eservice"
    assert escape_object_path("1ä") == "_31_c3_a4"
    assert escape_object_path("") == "_"


class FakeManager:
    """Answers as systemd would whose job ends with ``result``."""

    def __init__(self, result: str, properties: dict[str, Variant]) -> None:
        self.result = result
        self.properties = properties

    def __call__(self, server: Server, call: Message) -> None:
        member = call.fields[messages.MEMBER]
        if member in ("StartUnit", "StopUnit"):
            # The job of another unit ends first, and ours before the reply has come.
            server.signal("JobRemoved", "uoss", 1, "/job/1", "other.service", "failed")
            server.signal("JobRemoved", "uoss", 2, "/job/2", call.body[0], self.result)
            server.reply(call, "o", "/job/2")
        elif member == "GetAll":
            server.reply(call, "a{sv}", self.properties)
        elif member == "ResetFailedUnit":
            server.fail(call, "org.freedesktop.systemd1.NoSuchUnit", "Unit x.service not loaded.")
        else:
            server.fail(call, "org.freedesktop.DBus.Error.UnknownMethod", "?")


def connect(server: Server) -> Manager:
    return Manager(Bus.connect(server.address, peer=True))


def test_start(serve: Callable[..., Server]) -> None:
    server = serve(FakeManager("done", {}))
    with connect(server) as manager:
        manager.start_unit("container@a.service")
        manager.reset_failed("container@a.service")
    assert server.received[0].body == ("container@a.service", "replace")


def test_a_start_that_fails_says_why(serve: Callable[..., Server]) -> None:
    properties = {
        "Result": Variant("s", "exit-code"),
        "StatusText": Variant("s", "cannot pull nginx: not found"),
        "ExecMainCode": Variant("i", 1),
        "ExecMainStatus": Variant("i", 125),
    }
    with connect(serve(FakeManager("failed", properties))) as manager, pytest.raises(UnitFailure) as caught:
        manager.start_unit("container@a.service")
    assert str(caught.value) == (
        "container@a.service: cannot pull nginx: not found (it ended with exit status 125)"
        " (journalctl --user -u container@a.service)"
    )
    assert caught.value.properties["ExecMainStatus"] == 125


@pytest.mark.parametrize(
    ("job", "properties", "text"),
    [
        ("dependency", {"Result": "success"}, "a unit that it depends on failed"),
        ("canceled", {}, "the job was cancelled"),
        ("failed", {"LoadState": "bad-setting"}, "the unit has an error in its settings"),
        ("failed", {"Result": "oom-kill"}, "it ran out of memory and was killed"),
        ("failed", {"Result": "signal", "ExecMainCode": 2, "ExecMainStatus": 9}, "it was killed by signal 9"),
        ("failed", {"Result": "exit-code", "ExecStartPre": [("x", 1, 78)]}, "it ended with exit status 78"),
        ("failed", {"Result": "start-limit-hit"}, "it was started too often in a short time"),
        ("failed", {"Result": "newer-than-this-code"}, "newer-than-this-code"),
        ("failed", {}, "systemd does not say why"),
    ],
)
def test_explain_failure(job: str, properties: dict[str, Any], text: str) -> None:
    assert explain_failure(job, properties) == text
