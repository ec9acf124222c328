"""A client that watches: every PropertiesChanged of the daemon's, with the moment at which it came."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from dbus_next import Message

from tests.support.bus import MANAGER, NAME, ROOT
from usercontainerd.daemon.connection import connect_bus


class Change(NamedTuple):
    """One property of one object; ``moment`` is of the monotonic clock."""

    moment: float
    path: str
    name: str
    value: Any


class Watcher:
    """What has come, in order."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._news = asyncio.Event()

    def take(self, message: Message) -> bool:
        if message.member == "PropertiesChanged" and (message.path or "").startswith(ROOT):
            moment = time.monotonic()
            self.changes += [
                Change(moment, message.path, name, value.value) for name, value in message.body[1].items()
            ]
            self._news.set()
        return False

    def values(self, path: str, name: str) -> list[Any]:
        """All values that a property was said to have, in order."""
        return [each.value for each in self.changes if each.path == path and each.name == name]

    async def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 60) -> None:
        """Wait until what has come fulfils something."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._news.clear()
                try:
                    await self._news.wait()
                except asyncio.CancelledError as error:
                    error.add_note(f"waited in vain: {what}; changes: {self.changes[-20:]}")
                    raise


@asynccontextmanager
async def watch() -> AsyncIterator[Watcher]:
    """Watch for as long as the block lasts; the daemon stays for us."""
    bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
    watcher = Watcher()
    bus.add_message_handler(watcher.take)
    try:
        await bus.add_match(f"type='signal',sender='{NAME}',path_namespace='{ROOT}'")
        await bus.ask(NAME, ROOT, MANAGER, "Subscribe", "a{sv}", [{}])
        yield watcher
    finally:
        bus.disconnect()
