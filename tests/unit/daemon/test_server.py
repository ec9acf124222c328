"""Serving objects as described: signatures, errors, properties and their signals, limits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageFlag, MessageType, Variant

from tests.unit.daemon.fakebus import CLIENT, FakeConnection
from usercontainerd.base.errors import NoSuchContainer
from usercontainerd.daemon.call import Call, Options, Reply
from usercontainerd.daemon.limits import (
    BYTES_A_TOKEN,
    CALL_BURST,
    CALLS_A_SECOND,
    MAX_CALL_BYTES,
    MAX_CALLS,
    MAX_FDS,
    MAX_FDS_OF_CALL,
    MAX_FDS_OF_ONE,
    MAX_WEIGHT,
    MAX_WEIGHT_OF_ONE,
    Allowances,
)
from usercontainerd.daemon.server import OBJECT_MANAGER, PROPERTIES, Provider, Server

ROOT = "/org/example"
NAME = "org.example.Thing"
XML = f"""
<node><interface name="{NAME}">
 <method name="Add"><arg type="i" direction="in"/><arg type="i" direction="in"/><arg type="x" direction="out"/></method>
 <method name="Fail"><arg type="s" direction="in"/></method>
 <method name="Options"><arg type="a{{sv}}" direction="in"/><arg type="s" direction="out"/></method>
 <method name="Swap"><arg type="h" direction="in"/><arg type="h" direction="out"/></method>
 <method name="Hold"><arg type="h" direction="in"/><arg type="h" direction="in"/></method>
 <method name="Wait"/>
 <method name="Wrong"><arg type="s" direction="out"/></method>
 <signal name="Moved"><arg type="s"/></signal>
 <property name="Value" type="i" access="readwrite"/>
 <property name="Kind" type="s" access="read">
  <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/></property>
 <property name="Load" type="d" access="read">
  <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/></property>
 <property name="Text" type="s" access="read">
  <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="invalidates"/></property>
</interface></node>
"""


class Thing(Provider):
    interface = NAME

    def __init__(self) -> None:
        super().__init__()
        self.value = 1
        self.gate = asyncio.Event()
        self.methods = {
            "Hold": self._hold,
            "Add": self._add,
            "Fail": self._fail,
            "Options": self._options,
            "Swap": self._swap,
            "Wait": self._wait,
            "Wrong": self._wrong,
        }
        self.properties = {
            "Value": lambda: self.value,
            "Kind": lambda: "thing",
            "Load": lambda: 0.5,
            "Text": lambda: "long",
        }
        self.setters = {"Value": self._set}

    async def _add(self, _call: Call, one: int, other: int) -> int:
        return one + other

    async def _fail(self, _call: Call, how: str) -> None:
        if how == "known":
            raise NoSuchContainer("no such container", where="x", hint="look again")
        if how == "system":
            raise OSError(28, "No space left on device", "/some/file")
        raise RuntimeError("secret of the program")

    async def _options(self, call: Call, options: Options) -> str:
        text = options.take_text("name", "nobody")
        options.finish()
        return f"{text} of {call.sender}"

    async def _swap(self, call: Call, index: int) -> Reply:
        return Reply([0], [os.dup(call.find_fd(index))])

    async def _wait(self, _call: Call) -> None:
        await self.gate.wait()

    async def _hold(self, _call: Call, _one: int, _other: int) -> None:
        await self.gate.wait()

    async def _wrong(self, _call: Call) -> int:
        return 7

    async def _set(self, _call: Call, value: int) -> None:
        self.value = value


Test = Callable[[FakeConnection, Server, Thing], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Test], None]:
    (tmp_path / f"{NAME}.xml").write_text(XML)

    def run(test: Test) -> None:
        async def main() -> None:
            connection = FakeConnection()
            server = Server(connection, ROOT, str(tmp_path))  # type: ignore[arg-type]
            server.is_public = True
            thing = Thing()
            server.add(ROOT, thing)
            await test(connection, server, thing)

        asyncio.run(main())

    return run


def test_methods(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        answer = await bus.call(ROOT, NAME, "Add", "ii", [2, 3])
        assert (answer.signature, answer.body) == ("x", [5])
        assert (await bus.call(ROOT, None, "Add", "ii", [2, 3])).body == [5]
        answer = await bus.call(ROOT, NAME, "Options", "a{sv}", [{"name": Variant("s", "Ann")}])
        assert answer.body == [f"Ann of {CLIENT}"]

    play(test)


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body", "error"),
    [
        (ROOT, NAME, "Add", "is", [1, "x"], "org.freedesktop.DBus.Error.InvalidArgs"),
        (ROOT, NAME, "Add", "", [], "org.freedesktop.DBus.Error.InvalidArgs"),
        (ROOT, NAME, "Nope", "", [], "org.freedesktop.DBus.Error.UnknownMethod"),
        (ROOT, "org.example.Other", "Add", "ii", [1, 2], "org.freedesktop.DBus.Error.UnknownInterface"),
        ("/org/other", NAME, "Add", "ii", [1, 2], "org.freedesktop.DBus.Error.UnknownObject"),
        (ROOT, PROPERTIES, "Get", "ss", [NAME, "Nope"], "org.freedesktop.DBus.Error.UnknownProperty"),
        (ROOT, PROPERTIES, "Get", "ss", ["a.b", "Value"], "org.freedesktop.DBus.Error.UnknownInterface"),
        (
            ROOT,
            PROPERTIES,
            "Set",
            "ssv",
            [NAME, "Kind", Variant("s", "x")],
            "org.freedesktop.DBus.Error.PropertyReadOnly",
        ),
        (
            ROOT,
            PROPERTIES,
            "Set",
            "ssv",
            [NAME, "Value", Variant("s", "x")],
            "org.usercontainer1.Error.InvalidArgument",
        ),
        (
            ROOT,
            NAME,
            "Options",
            "a{sv}",
            [{"nmae": Variant("s", "x")}],
            "org.usercontainer1.Error.InvalidArgument",
        ),
        (
            ROOT,
            NAME,
            "Options",
            "a{sv}",
            [{"name": Variant("i", 1)}],
            "org.usercontainer1.Error.InvalidArgument",
        ),
        (ROOT, OBJECT_MANAGER, "Nothing", "", [], "org.freedesktop.DBus.Error.UnknownMethod"),
        (ROOT, NAME, "Swap", "h", [0], "org.usercontainer1.Error.InvalidArgument"),
        (ROOT, NAME, "Fail", "s", ["known"], "org.usercontainer1.Error.NoSuchContainer"),
        (ROOT, NAME, "Fail", "s", ["system"], "org.usercontainer1.Error.HostError"),
        (ROOT, NAME, "Fail", "s", ["other"], "org.usercontainer1.Error.HostError"),
        (ROOT, NAME, "Wrong", "", [], "org.usercontainer1.Error.HostError"),
    ],
)
def test_errors_have_names_and_no_traceback(
    play: Callable[[Test], None],
    path: str,
    interface: str,
    member: str,
    signature: str,
    body: list[Any],
    error: str,
) -> None:
    async def test(bus: FakeConnection, server: Server, _thing: Thing) -> None:
        answer = await bus.call(path, interface, member, signature, body)
        assert answer.message_type is MessageType.ERROR
        assert answer.error_name == error
        assert "Traceback" not in answer.body[0]
        assert "secret" not in answer.body[0]
        await asyncio.sleep(0.001)
        assert server.calls_underway == 0

    play(test)


def test_an_error_says_what_where_and_what_to_do(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        answer = await bus.call(ROOT, NAME, "Fail", "s", ["known"])
        assert answer.body == ["x: no such container (look again)"]
        answer = await bus.call(ROOT, NAME, "Fail", "s", ["system"])
        assert answer.body == ["/some/file: No space left on device"]

    play(test)


def test_properties_and_their_signals(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, server: Server, thing: Thing) -> None:
        answer = await bus.call(ROOT, PROPERTIES, "Get", "ss", [NAME, "Value"])
        assert answer.body == [Variant("i", 1)]
        await bus.call(ROOT, PROPERTIES, "Set", "ssv", [NAME, "Value", Variant("i", 5)])
        every = (await bus.call(ROOT, PROPERTIES, "GetAll", "s", [NAME])).body[0]
        assert every["Value"].value == 5
        assert set(every) == {"Value", "Kind", "Load", "Text"}
        server.report_changes(ROOT, thing, ["Value", "Kind", "Load", "Text"])
        (signal,) = bus.signals("PropertiesChanged")
        assert signal.body == [NAME, {"Value": Variant("i", 5)}, ["Text"]]
        server.report_changes(ROOT, thing, ["Kind", "Load"])
        assert len(bus.signals("PropertiesChanged")) == 1

    play(test)


def test_objects_come_and_go(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, server: Server, _thing: Thing) -> None:
        server.add(f"{ROOT}/one", Thing())
        (added,) = bus.signals("InterfacesAdded")
        assert added.path == ROOT
        assert added.body[0] == f"{ROOT}/one"
        managed = (await bus.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")).body[0]
        assert list(managed) == [f"{ROOT}/one"]
        assert managed[f"{ROOT}/one"][NAME]["Kind"] == Variant("s", "thing")
        server.remove(f"{ROOT}/one")
        assert bus.signals("InterfacesRemoved")[0].body == [f"{ROOT}/one", [NAME]]
        server.remove(f"{ROOT}/one")
        assert len(bus.signals("InterfacesRemoved")) == 1

    play(test)


def test_nothing_is_told_before_the_name_is_there(play: Callable[[Test], None]) -> None:
    """A signal for each of 200 containers would make the first caller wait; whoever comes gets all objects."""

    async def test(bus: FakeConnection, server: Server, _thing: Thing) -> None:
        server.is_public = False
        server.add(f"{ROOT}/early", Thing())
        assert bus.sent == []
        server.is_public = True
        server.add(f"{ROOT}/late", Thing())
        assert [each.body[0] for each in bus.signals("InterfacesAdded")] == [f"{ROOT}/late"]
        answer = await bus.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        assert set(answer.body[0]) == {f"{ROOT}/early", f"{ROOT}/late"}

    play(test)


def test_introspection_is_the_description(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, server: Server, _thing: Thing) -> None:
        server.add(f"{ROOT}/one/two", Thing())
        introspect = "org.freedesktop.DBus.Introspectable"
        text = (await bus.call(ROOT, introspect, "Introspect")).body[0]
        assert 'value="invalidates"' in text
        assert '<node name="one"' in text
        assert "ObjectManager" in text
        text = (await bus.call(f"{ROOT}/one", introspect, "Introspect")).body[0]
        assert '<node name="two"' in text
        assert NAME not in text
        assert (await bus.call("/no", introspect, "Introspect")).message_type is MessageType.ERROR

    play(test)


def test_what_came_this_moment_can_be_introspected(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, server: Server, _thing: Thing) -> None:
        async def look_for(path: str) -> None:
            server.add(path, Thing())

        server.look_for = look_for
        answer = await bus.call(f"{ROOT}/new", "org.freedesktop.DBus.Introspectable", "Introspect")
        assert NAME in answer.body[0]

    play(test)


def test_a_provider_must_be_what_is_described(play: Callable[[Test], None]) -> None:
    async def test(_bus: FakeConnection, server: Server, _thing: Thing) -> None:
        for change in (
            lambda thing: thing.methods.pop("Add"),
            lambda thing: thing.properties.update(More=lambda: 1),
            lambda thing: thing.setters.clear(),
        ):
            thing = Thing()
            change(thing)  # type: ignore[no-untyped-call]
            with pytest.raises(ValueError, match="differ"):
                server.add(f"{ROOT}/x", thing)

    play(test)


def test_descriptors_are_closed_whatever_happens(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        for member, signature, body in (("Add", "ii", [1, 2]), ("Nope", "", []), ("Swap", "h", [5])):
            reader, writer = os.pipe()
            await bus.call(ROOT, NAME, member, signature, body, fds=[writer])
            await asyncio.sleep(0)
            assert os.read(reader, 1) == b""
            os.close(reader)
        reader, writer = os.pipe()
        answer = await bus.call(ROOT, NAME, "Swap", "h", [0], fds=[writer])
        (copy,) = answer.unix_fds
        os.close(copy)
        assert os.read(reader, 1) == b""
        os.close(reader)

    play(test)


def make_fds(count: int) -> list[int]:
    reader, writer = os.pipe()
    os.close(reader)
    return [writer, *(os.dup(writer) for _ in range(count - 1))]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_that_no_argument_names_are_closed_at_once(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, thing: Thing) -> None:
        fds = make_fds(40)
        waiting = asyncio.create_task(bus.call(ROOT, NAME, "Hold", "hh", [30, 7], fds=fds))
        await asyncio.sleep(0)
        assert [index for index, fd in enumerate(fds) if is_open(fd)] == [7, 30]
        thing.gate.set()
        assert (await waiting).message_type is MessageType.METHOD_RETURN
        assert not any(map(is_open, fds))
        # An index beyond them, twice the same, or one within a container, which no method takes.
        for signature, body in (("hh", [3, 3]), ("hh", [2**32 - 1, 0]), ("ah", [[0]])):
            fds = make_fds(2)
            await bus.call(ROOT, NAME, "Hold", signature, body, fds=fds)
            await asyncio.sleep(0)
            assert not any(map(is_open, fds))

    play(test)


def test_a_call_has_only_so_many_descriptors(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        count = MAX_FDS_OF_CALL + 1
        fds = make_fds(count)
        answer = await bus.call(ROOT, NAME, "Hold", "h" * count, list(range(count)), fds=fds)
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert not any(map(is_open, fds))

    play(test)


def test_calls_hold_only_so_many_descriptors(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, thing: Thing) -> None:
        async def hold(sender: str) -> Message:
            return await bus.call(ROOT, NAME, "Hold", "hh", [0, 1], sender=sender, fds=make_fds(2))

        of_one = MAX_FDS_OF_ONE // 2
        waiting = [asyncio.create_task(hold(":1.1")) for _ in range(of_one)]
        await asyncio.sleep(0)
        answer = await hold(":1.1")
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert "of one client" in answer.body[0]
        others = [f":1.{10 + number}" for number in range(MAX_FDS // MAX_FDS_OF_ONE - 1)]
        waiting += [asyncio.create_task(hold(sender)) for sender in others for _ in range(of_one)]
        await asyncio.sleep(0)
        answer = await hold(":1.2")
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        # Whoever needs none is served, and everybody once they are back.
        assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2], sender=":1.2")).body == [3]
        thing.gate.set()
        for each in waiting:
            assert (await each).message_type is MessageType.METHOD_RETURN
        assert (await hold(":1.2")).message_type is MessageType.METHOD_RETURN

    play(test)


def test_a_client_has_only_so_many_calls_under_way(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, server: Server, thing: Thing) -> None:
        waiting = [asyncio.create_task(bus.call(ROOT, NAME, "Wait")) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        assert server.calls_underway == MAX_CALLS
        answer = await bus.call(ROOT, NAME, "Add", "ii", [1, 2])
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2], sender=":1.8")).body == [3]
        thing.gate.set()
        for each in waiting:
            assert (await each).message_type is MessageType.METHOD_RETURN
        assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2])).body == [3]

    play(test)


def test_a_client_has_only_so_many_calls_a_second(
    play: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        clock = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
        for number in range(CALL_BURST):
            bus.sent.clear()
            assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2])).body == [3], number
        reader, writer = os.pipe()
        answer = await bus.call(ROOT, NAME, "Add", "ii", [1, 2], fds=[writer])
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert os.read(reader, 1) == b""
        os.close(reader)
        assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2], sender=":1.8")).body == [3]
        clock += 2 / CALLS_A_SECOND
        for allowed in (True, True, False):
            answer = await bus.call(ROOT, NAME, "Add", "ii", [1, 2])
            assert (answer.message_type is MessageType.METHOD_RETURN) == allowed

    play(test)


def test_long_calls_are_refused_or_count_as_several(
    play: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1000.0)
        answer = await bus.call(ROOT, NAME, "Add", "ii", [1, 2], size=MAX_CALL_BYTES + 1)
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert str(MAX_CALL_BYTES) in answer.body[0]
        size = 100 * BYTES_A_TOKEN
        for _ in range(CALL_BURST // 101):
            assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2], size=size)).body == [3]
        answer = await bus.call(ROOT, NAME, "Add", "ii", [1, 2], size=size)
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2])).body == [3]

    play(test)


def test_calls_occupy_only_so_much_memory(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, thing: Thing) -> None:
        def call(member: str, sender: str) -> asyncio.Task[Message]:
            body = [] if member == "Wait" else [1, 2]
            return asyncio.create_task(
                bus.call(ROOT, NAME, member, "i" * len(body), body, sender=sender, size=MAX_CALL_BYTES)
            )

        of_one, clients = MAX_WEIGHT_OF_ONE // MAX_CALL_BYTES, MAX_WEIGHT // MAX_WEIGHT_OF_ONE
        waiting = [
            call("Wait", f":1.{100 * number + each}") for number in range(clients) for each in range(of_one)
        ]
        await asyncio.sleep(0)
        answer = await call("Add", ":1.98")
        assert answer.error_name == "org.usercontainer1.Error.LimitExceeded"
        assert (await bus.call(ROOT, NAME, "Add", "ii", [1, 2], sender=":1.98", size=0)).body == [3]
        thing.gate.set()
        for each in waiting:
            assert (await each).message_type is MessageType.METHOD_RETURN
        assert (await call("Add", ":1.99")).body == [3]

    play(test)


def test_allowances_of_those_who_have_left_are_forgotten() -> None:
    allowances = Allowances(burst=10, rate=5)
    assert allowances.take("a", 0.0)
    assert all(allowances.take("b", 0.0) for _ in range(10))
    assert not allowances.take("b", 0.1)
    assert allowances.take("b", 0.2)
    allowances.drop("b")
    assert len(allowances) == 1
    assert all(allowances.take("b", 1.9) for _ in range(10))
    assert allowances.take("c", 2.5)
    assert len(allowances) == 2  # the bucket of a was full again


def test_who_wants_no_answer_gets_none(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, _server: Server, _thing: Thing) -> None:
        for body in ([1, 2], ["x"]):
            signature = "ii" if len(body) == 2 else "s"
            message = Message(
                path=ROOT,
                interface=NAME,
                member="Add",
                signature=signature,
                body=body,
                sender=CLIENT,
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
            bus.deliver(message)
        await asyncio.sleep(0.01)
        assert bus.sent == []

    play(test)


def test_clients_that_leave_are_noticed(play: Callable[[Test], None]) -> None:
    async def test(bus: FakeConnection, server: Server, _thing: Thing) -> None:
        gone: list[str] = []
        end = await server.watch_client(CLIENT, lambda: gone.append("one"))
        await server.watch_client(CLIENT, lambda: gone.append("two"))
        assert len(bus.rules) == 1
        end()
        # One who comes back needs no second rule.
        (await server.watch_client(CLIENT, lambda: gone.append("three")))()
        assert len(bus.rules) == 1
        bus.leave(CLIENT)
        assert gone == ["two"]
        assert bus.rules == []
        await server.watch_client(":1.99", lambda: gone.append("never there"))
        assert gone == ["two", "never there"]

    play(test)
