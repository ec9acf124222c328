"""A client of dasbus: what it found as JSON, then the states of the container that its argument names."""

from __future__ import annotations

import json
import sys
from typing import Any

from dasbus.connection import SessionMessageBus
from dasbus.error import DBusError, ErrorMapper, get_error_decorator
from dasbus.loop import EventLoop

NAME, ROOT = "org.usercontainer1", "/org/usercontainer1"
errors = ErrorMapper()


@get_error_decorator(errors)(f"{NAME}.Error.NoSuchContainer")
class NoSuchContainer(DBusError):  # type: ignore[misc]
    """The service's own error as a class of ours."""


def main(name: str) -> None:
    bus = SessionMessageBus(error_mapper=errors)
    manager = bus.get_proxy(NAME, ROOT)
    try:
        manager.GetContainer("nobody", {})
        error = ""
    except NoSuchContainer:
        error = f"{NAME}.Error.NoSuchContainer"
    container = bus.get_proxy(NAME, manager.GetContainer(name, {}))
    found = {
        "version": manager.Version,
        "containers": [each[1] for each in manager.ListContainers({})],
        "error": error,
        "state": container.State,
    }
    print(json.dumps(found), flush=True)
    manager.Subscribe({})

    def report(_interface: str, changed: Any, _gone: Any) -> None:
        if "State" in changed:
            print(changed["State"].unpack(), flush=True)

    container.PropertiesChanged.connect(report)
    EventLoop().run()


main(sys.argv[1])
