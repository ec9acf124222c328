"""Serving objects on the bus exactly as their descriptions say: methods, properties, signals, introspection.

Every message goes through ``Server``: signatures are checked against the description before a handler sees the
call, errors become named replies, property changes become signals as their annotation demands.
"""

from __future__ import annotations

import asyncio
import logging

from usercontainerd.base.errors import InvalidArgument, UsercontainerError
from usercontainerd.daemon.admission import Admission
from usercontainerd.daemon.call import (
    AccessDenied,
    BusFault,
    Call,
    LimitExceeded,
    Options,
    Reply,
    describe_error,
    explain_crash,
    find_used_fds,
    name_error,
)
from usercontainerd.daemon.connection import BUS, BUS_PATH, Connection, Message, MessageType, Variant
from usercontainerd.daemon.description import MANAGER_XML, STANDARD_XML, Emits, Interface, read_interface
from usercontainerd.daemon.logbook import CALLER_REFUSED, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    Handler = Callable[..., Awaitable[Any]]

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
PEER = "org.freedesktop.DBus.Peer"
DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
NO_REPLY = 1

logger = logging.getLogger(__name__)


class Provider:
    """What serves one interface of one object: ``methods`` and ``properties`` by their D-Bus names.

    A method is a coroutine function of the ``Call``, the arguments, and ``Options`` in place of a trailing
    ``a{sv}``; it returns None, one value, a tuple for several, or a ``Reply``. A property is a function of nothing.
    ``setters`` are for those that can be set.
    """

    interface: str = ""

    def __init__(self) -> None:
        self.methods: Mapping[str, Handler] = {}
        self.properties: Mapping[str, Callable[[], Any]] = {}
        self.setters: Mapping[str, Callable[[Call, Any], Awaitable[None]]] = {}
        self._seen: dict[str, Any] = {}

    def find_changes(self) -> list[str]:
        """The properties that are not what they were when this was last asked; at first all of them.

        Against what was seen then: some are read from the disk, which has changed before anybody looks again.
        """
        values = {name: read() for name, read in self.properties.items()}
        changed = [name for name in values if name not in self._seen or values[name] != self._seen[name]]
        self._seen = values
        return changed


class Server:
    """The objects of one connection. ``root`` is where the object manager is."""

    def __init__(self, connection: Connection, root: str, descriptions: str) -> None:
        self.connection = connection
        self.root = root
        self._directory = descriptions
        self._interfaces: dict[str, Interface] = {}
        self._objects: dict[str, dict[str, Provider]] = {}
        self._admission = Admission(lambda: asyncio.get_running_loop().time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: dict[str, list[Callable[[], None]]] = {}
        # Until the name is there nobody knows of an object: whoever comes gets them all, and hears of changes then.
        self.is_public = False
        self.on_call: Callable[[str, str], None] = lambda _sender, _member: None
        # Asked for an object that is not there: it may have come so lately that nobody has told us yet.
        self.look_for: Callable[[str], Awaitable[None]] | None = None
        connection.gate = self._admit
        connection.on_refusal = self._refuse
        connection.add_message_handler(self._take_message)

    @property
    def calls_underway(self) -> int:
        """How many calls have not been answered yet."""
        return len(self._tasks)

    async def finish_calls(self, patience: float) -> None:
        """Wait at most ``patience`` seconds until every call has its answer, and all answers are with the bus."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=patience)
        await self.connection.flush()

    # Objects

    def describe(self, name: str) -> Interface:
        """The description of an interface."""
        if name not in self._interfaces:
            self._interfaces[name] = read_interface(self._directory, name)
        return self._interfaces[name]

    def add(self, path: str, *providers: Provider) -> None:
        """Make an object appear. Raises ``ValueError`` if a provider is not what its description says."""
        for provider in providers:
            check_provider(provider, self.describe(provider.interface))
        self._objects[path] = {provider.interface: provider for provider in providers}
        if path != self.root:
            body = [path, {p.interface: self.read_properties(p) for p in providers}]
            self._send_signal(self.root, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", body)

    def remove(self, path: str) -> None:
        """Make an object disappear; harmless if it is not there."""
        gone = self._objects.pop(path, None)
        if gone is not None:
            self._send_signal(self.root, OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, list(gone)])

    def has(self, path: str) -> bool:
        """Tell whether there is an object at ``path``."""
        return path in self._objects

    def emit(self, path: str, provider: Provider, member: str, *values: Any) -> None:
        """Send a signal of an object's interface."""
        signature = self.describe(provider.interface).signals[member]
        self._send_signal(path, provider.interface, member, signature, list(values))

    def send_to(self, client: str, path: str, provider: Provider, member: str, *values: Any) -> None:
        """Send a signal to one client only."""
        signature = self.describe(provider.interface).signals[member]
        self._send_signal(path, provider.interface, member, signature, list(values), destination=client)

    def report_changes(self, path: str, provider: Provider, names: list[str]) -> None:
        """Tell clients that properties have changed, each as its annotation says; const ones may not."""
        known = self.describe(provider.interface).properties
        changed, invalidated = {}, []
        for name in names:
            emits = known[name].emits
            if emits is Emits.VALUE:
                changed[name] = Variant(known[name].signature, provider.properties[name]())
            elif emits is Emits.INVALIDATES:
                invalidated.append(name)
        if changed or invalidated:
            body = [provider.interface, changed, invalidated]
            self._send_signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def read_properties(self, provider: Provider) -> dict[str, Variant]:
        """All properties of a provider, as ``GetAll`` returns them."""
        known = self.describe(provider.interface).properties
        return {name: Variant(known[name].signature, read()) for name, read in provider.properties.items()}

    def _send_signal(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: list[Any],
        *,
        destination: str | None = None,
    ) -> None:
        if not self.is_public:
            return
        self.connection.post(
            Message(
                destination=destination,
                message_type=MessageType.SIGNAL,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=body,
            )
        )

    # Clients

    async def watch_client(self, sender: str, gone: Callable[[], None]) -> Callable[[], None]:
        """Call ``gone`` when a client leaves the bus; at once if it has left. Returns what ends the watch."""
        is_new = sender not in self._watched
        self._watched.setdefault(sender, []).append(gone)
        if is_new:
            await self.connection.add_match(plan_watch(sender))
            there = await self.connection.ask(BUS, BUS_PATH, BUS, "NameHasOwner", "s", [sender])
            if not there[0]:
                self._forget_client(sender)

        def end() -> None:
            if gone in self._watched.get(sender, ()):
                self._watched[sender].remove(gone)

        return end

    def _forget_client(self, sender: str) -> None:
        self._admission.forget(sender)
        if sender not in self._watched:
            return
        for callback in self._watched.pop(sender):
            callback()
        self.connection.remove_match(plan_watch(sender))

    # Messages

    def _admit(self, message: Message, size: int) -> bool:
        """Tell by its header whether a call is to be read; else it is answered here, where it costs little.

        Who sends without waiting for answers holds up nobody for long.
        """
        refusal = self._admission.judge_size(message.sender or "", size)
        if refusal:
            self._refuse(message, refusal)
        return not refusal

    def _refuse(self, message: Message, why: str) -> None:
        error = LimitExceeded(why)
        self._log_refused_call(message, error)
        self._reply_error(message, error)

    def _take_message(self, message: Message) -> bool:
        if message.message_type is MessageType.SIGNAL:
            if message.member == "NameOwnerChanged" and message.sender == BUS and not message.body[2]:
                self._forget_client(message.body[0])
            return False
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        call = Call(message.sender or "", message.unix_fds, message.weight)
        # Now: a call may take long, and of those that come at once each may have 253.
        call.close_surplus(find_used_fds(message))
        refusal = self._admission.judge(call)
        if refusal:
            call.close()
            self._refuse(message, refusal)
            return True
        self._admission.enter(call)
        task = asyncio.get_running_loop().create_task(self._answer(message, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, message: Message, call: Call) -> None:
        try:
            self.on_call(call.sender, f"{message.interface}.{message.member}")
            signature, reply = await self._dispatch(message, call)
            self._reply(message, signature, reply)
        except UsercontainerError as error:
            if isinstance(error, LimitExceeded | AccessDenied):
                self._log_refused_call(message, error)
            self._reply_error(message, error)
        except Exception as error:
            logger.exception(
                "%s.%s failed", message.interface, message.member, extra=note(**_list_fields(message))
            )
            self._reply_error(message, explain_crash(error))
        finally:
            self._admission.leave(call)
            call.close()

    def _log_refused_call(self, message: Message, error: UsercontainerError) -> None:
        fields = {**_list_fields(message), "USERCONTAINER_ERROR": name_error(error)}
        self.log_refusal(message.sender or "", str(error), **fields)

    def log_refusal(self, sender: str, why: str, **fields: str) -> None:
        """Tell the journal of a call that was refused, but of one client not more often than somebody can read."""
        if self._admission.may_log(sender):
            fields = {"USERCONTAINER_SENDER": sender, **fields}
            logger.warning("refused a call of %s: %s", sender, why, extra=note(CALLER_REFUSED, **fields))

    def _reply(self, message: Message, signature: str, reply: Reply) -> None:
        if message.flags.value & NO_REPLY:
            Call("", reply.fds).close()
            return
        answer = Message.new_method_return(message, signature, reply.body, reply.fds)
        if reply.fds:
            error = LimitExceeded(
                "no file descriptor can be sent",
                hint="some program of yours has too many on their way: see ETOOMANYREFS in unix(7)",
            )
            instead = Message.new_error(message, name_error(error), describe_error(error))
            self.connection.post_with(answer, reply.fds, instead)
        else:
            self.connection.post(answer)

    def _reply_error(self, message: Message, error: UsercontainerError) -> None:
        if not message.flags.value & NO_REPLY:
            self.connection.post(Message.new_error(message, name_error(error), describe_error(error)))

    async def _dispatch(self, message: Message, call: Call) -> tuple[str, Reply]:
        interface, member = message.interface or "", message.member or ""
        if interface == PEER:
            return answer_peer(member)
        if message.path not in self._objects and self.look_for is not None:
            await self.look_for(message.path)
        if interface == INTROSPECTABLE:
            _expect(message, "")
            return "s", Reply([self.introspect(message.path)], [])
        objects = self._objects.get(message.path)
        if objects is None:
            raise BusFault("UnknownObject", f"there is no object {message.path}")
        if interface == PROPERTIES:
            return await self._serve_properties(message, call, objects)
        if interface == OBJECT_MANAGER and message.path == self.root:
            if member != "GetManagedObjects":
                raise BusFault("UnknownMethod", f"there is no method {member} in {OBJECT_MANAGER}")
            _expect(message, "")
            return "a{oa{sa{sv}}}", Reply([self._manage_objects()], [])
        provider = objects.get(interface) if interface else _find_by_member(objects, member)
        if provider is None:
            raise BusFault("UnknownInterface", f"there is no interface {interface} at {message.path}")
        method = self.describe(provider.interface).methods.get(member)
        if method is None:
            raise BusFault("UnknownMethod", f"there is no method {member} in {provider.interface}")
        _expect(message, method.inputs)
        result = await run_method(provider.methods[member], method.inputs, call, message.body)
        return method.outputs, pack_result(result, method.outputs)

    def _manage_objects(self) -> dict[str, dict[str, dict[str, Variant]]]:
        return {
            path: {name: self.read_properties(provider) for name, provider in providers.items()}
            for path, providers in self._objects.items()
            if path != self.root
        }

    async def _serve_properties(
        self, message: Message, call: Call, objects: dict[str, Provider]
    ) -> tuple[str, Reply]:
        wanted = {"Get": "ss", "GetAll": "s", "Set": "ssv"}.get(message.member)
        if wanted is None:
            raise BusFault("UnknownMethod", f"there is no method {message.member} in {PROPERTIES}")
        _expect(message, wanted)
        interface = message.body[0]
        if message.member == "GetAll" and interface in ("", PEER, INTROSPECTABLE, PROPERTIES):
            every = {
                name: value
                for provider in (objects.values() if not interface else ())
                for name, value in self.read_properties(provider).items()
            }
            return "a{sv}", Reply([every], [])
        provider = objects.get(interface)
        if provider is None:
            raise BusFault("UnknownInterface", f"there is no interface {interface[:200]} at {message.path}")
        if message.member == "GetAll":
            return "a{sv}", Reply([self.read_properties(provider)], [])
        name = message.body[1]
        known = self.describe(interface).properties.get(name)
        if known is None:
            raise BusFault("UnknownProperty", f"there is no property {name[:200]} in {interface}")
        if message.member == "Get":
            return "v", Reply([Variant(known.signature, provider.properties[name]())], [])
        if not known.writable:
            raise BusFault("PropertyReadOnly", f"the property {name} cannot be set")
        value = message.body[2]
        if value.signature != known.signature:
            raise InvalidArgument(f"the property {name} is of type {known.signature}")
        await provider.setters[name](call, value.value)
        return "", Reply([], [])

    def introspect(self, path: str) -> str:
        """The description of the object at ``path`` and the names of those below it. Raises ``BusFault``."""
        prefix = path.rstrip("/") + "/"
        children = sorted(
            {each.removeprefix(prefix).partition("/")[0] for each in self._objects if each.startswith(prefix)}
        )
        providers = self._objects.get(path)
        if providers is None and not children:
            raise BusFault("UnknownObject", f"there is no object {path}")
        parts = [DOCTYPE, "<node>\n"]
        if providers is not None:
            parts.append(STANDARD_XML)
            if path == self.root:
                parts.append(MANAGER_XML)
            parts += [f" {self.describe(name).xml}\n" for name in providers]
        parts += [f' <node name="{child}"/>\n' for child in children if child]
        return "".join([*parts, "</node>\n"])


def plan_watch(client: str) -> str:
    """The match rule for a client's end."""
    return (
        f"type='signal',sender='{BUS}',path='{BUS_PATH}',interface='{BUS}',"
        f"member='NameOwnerChanged',arg0='{client}'"
    )


def _list_fields(message: Message) -> dict[str, str]:
    """The journal's fields of a call."""
    return {
        "USERCONTAINER_SENDER": message.sender or "",
        "USERCONTAINER_METHOD": f"{message.interface or ''}.{message.member}",
    }


def check_provider(provider: Provider, description: Interface) -> None:
    """Raise ``ValueError`` unless the provider has exactly the members that are described."""
    writable = {name for name, each in description.properties.items() if each.writable}
    for what, have, described in (
        ("methods", set(provider.methods), set(description.methods)),
        ("properties", set(provider.properties), set(description.properties)),
        ("setters", set(provider.setters), writable),
    ):
        if have != described:
            raise ValueError(f"{description.name}: {what} differ from the description: {have ^ described}")


def _find_by_member(objects: dict[str, Provider], member: str) -> Provider | None:
    """A call need not name its interface (D-Bus specification, "Message Types")."""
    return next((provider for provider in objects.values() if member in provider.methods), None)


def _expect(message: Message, signature: str) -> None:
    if message.signature != signature:
        raise BusFault(
            "InvalidArgs",
            f"{message.member} takes arguments of type {signature or 'none'}, not {message.signature[:100] or 'none'}",
        )


async def run_method(handler: Handler, inputs: str, call: Call, body: list[Any]) -> Any:
    """Call a handler with its arguments; options come read, and all must have been known."""
    if not inputs.endswith("a{sv}"):
        return await handler(call, *body)
    options = Options(body[-1])
    return await handler(call, *body[:-1], options)


def pack_result(result: Any, outputs: str) -> Reply:
    """Make the body of an answer of what a handler returned."""
    if isinstance(result, Reply):
        return result
    if not outputs:
        return Reply([], [])
    return Reply(list(result) if isinstance(result, tuple) else [result], [])


def answer_peer(member: str) -> tuple[str, Reply]:
    """org.freedesktop.DBus.Peer, which every object has."""
    if member == "Ping":
        return "", Reply([], [])
    if member == "GetMachineId":
        with open("/etc/machine-id", encoding="ascii") as file:
            return "s", Reply([file.read().strip()], [])
    raise BusFault("UnknownMethod", f"there is no method {member} in {PEER}")
