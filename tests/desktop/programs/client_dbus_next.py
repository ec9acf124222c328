"""A client of dbus-next: what it found as JSON, then the states of the container that its argument names."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from dbus_next import DBusError
from dbus_next.aio import MessageBus

NAME, ROOT = "org.usercontainer1", "/org/usercontainer1"


async def main(name: str) -> None:
    bus = await MessageBus().connect()

    async def get_interface(path: str, interface: str) -> Any:
        return bus.get_proxy_object(NAME, path, await bus.introspect(NAME, path)).get_interface(interface)

    manager = await get_interface(ROOT, f"{NAME}.Manager")
    try:
        await manager.call_get_container("nobody", {})
        error = ""
    except DBusError as caught:
        error = caught.type
    path = await manager.call_get_container(name, {})
    container = await get_interface(path, f"{NAME}.Container")
    properties = await get_interface(path, "org.freedesktop.DBus.Properties")
    found = {
        "version": await manager.get_version(),
        "containers": [each[1] for each in await manager.call_list_containers({})],
        "error": error,
        "state": await container.get_state(),
    }

    def report(_interface: str, changed: dict[str, Any], _gone: list[str]) -> None:
        if "State" in changed:
            print(changed["State"].value, flush=True)

    properties.on_properties_changed(report)
    await manager.call_subscribe({})
    print(json.dumps(found), flush=True)
    await bus.wait_for_disconnect()


asyncio.run(main(sys.argv[1]))
