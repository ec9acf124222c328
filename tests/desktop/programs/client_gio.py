"""A client of GIO: what it found as JSON, then the states of the container that its argument names."""

from __future__ import annotations

import json
import sys
from typing import Any

from gi.repository import Gio, GLib

NAME, ROOT = "org.usercontainer1", "/org/usercontainer1"


def make_proxy(path: str, interface: str) -> Any:
    flags = Gio.DBusProxyFlags.NONE
    return Gio.DBusProxy.new_for_bus_sync(Gio.BusType.SESSION, flags, None, NAME, path, interface, None)


def main(name: str) -> None:
    manager = make_proxy(ROOT, f"{NAME}.Manager")
    listed = manager.ListContainers("(a{sv})", {})
    try:
        manager.GetContainer("(sa{sv})", "nobody", {})
        error = ""
    except GLib.Error as caught:
        error = Gio.DBusError.get_remote_error(caught)
    path = manager.GetContainer("(sa{sv})", name, {})
    objects = Gio.DBusObjectManagerClient.new_for_bus_sync(
        Gio.BusType.SESSION, Gio.DBusObjectManagerClientFlags.NONE, NAME, ROOT, None, None, None
    )
    container = objects.get_interface(path, f"{NAME}.Container")
    found = {
        "version": manager.get_cached_property("Version").unpack(),
        "containers": [each[1] for each in listed],
        "error": error,
        "state": container.get_cached_property("State").unpack(),
    }
    print(json.dumps(found), flush=True)

    def report(_proxy: Any, changed: Any, _gone: Any) -> None:
        if "State" in changed.unpack():
            print(changed.unpack()["State"], flush=True)

    container.connect("g-properties-changed", report)
    GLib.MainLoop().run()


main(sys.argv[1])
