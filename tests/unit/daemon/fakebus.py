"""A connection without a bus: what a server sends is kept, and messages to it are handed over directly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from dbus_next import Message, MessageFlag, MessageType

CLIENT = ":1.7"


class FakeConnection:
    """What ``Server`` and others use of ``Connection``."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.rules: list[str] = []
        self.owners = {CLIENT}
        self.gate: Callable[[Message, int], bool] = lambda _call, _size: True
        self.on_refusal: Callable[[Message, str], None] = lambda _call, _why: None
        self._handlers: list[Callable[[Message], bool]] = []
        self._serial = 0

    def add_message_handler(self, handler: Callable[[Message], bool]) -> None:
        self._handlers.append(handler)

    def post(self, message: Message) -> None:
        # What cannot be marshalled fails here, as with the real one.
        message.serial = self._next()
        message._marshall(negotiate_unix_fd=True)
        self.sent.append(message)

    def post_with(self, message: Message, fds: list[int], instead: Message) -> None:
        self.post(message)

    async def ask(self, *words: Any, **_: Any) -> list[Any]:
        member, body = words[3], words[5] if len(words) > 5 else []
        if member == "NameHasOwner":
            return [body[0] in self.owners]
        return []

    async def add_match(self, rule: str) -> None:
        self.rules.append(rule)

    def remove_match(self, rule: str) -> None:
        self.rules.remove(rule)

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def deliver(self, message: Message, size: int = 100) -> bool:
        """Hand over a message of ``size`` bytes, and as many in memory; the gate may keep a call out."""
        message.serial = message.serial or self._next()
        message.weight = size
        if message.message_type is MessageType.METHOD_CALL and not self.gate(message, size):
            for fd in message.unix_fds:
                os.close(fd)
            return True
        handled = [handler(message) for handler in self._handlers]
        return any(handled)

    async def call(
        self,
        path: str,
        interface: str | None,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        *,
        sender: str = CLIENT,
        fds: list[int] | None = None,
        flags: MessageFlag = MessageFlag.NONE,
        size: int = 100,
    ) -> Message:
        """Call a method and return the answer."""
        message = Message(
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body or [],
            sender=sender,
            destination="org.usercontainer1",
            unix_fds=fds or [],
            flags=flags,
        )
        assert self.deliver(message, size)
        for _ in range(1000):
            await asyncio.sleep(0)
            for sent in self.sent:
                if sent.reply_serial == message.serial:
                    return sent
        raise AssertionError("no answer")

    def signals(self, member: str) -> list[Message]:
        return [m for m in self.sent if m.message_type is MessageType.SIGNAL and m.member == member]

    def leave(self, name: str) -> None:
        """A client leaves the bus."""
        self.owners.discard(name)
        self.deliver(
            Message(
                message_type=MessageType.SIGNAL,
                sender="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="NameOwnerChanged",
                signature="sss",
                body=[name, name, ""],
            )
        )
