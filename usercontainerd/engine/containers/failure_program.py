"""The program ``notify-failure NAME``: tells the desktop that a container failed (Desktop Notifications Specification).

Where nobody shows notifications there is nobody to tell: that is no failure.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import SystemdError, printable
from usercontainerd.base.names import check_container_name, unit_name
from usercontainerd.base.paths import Paths
from usercontainerd.runtime.summary import describe_exit, read_exit
from usercontainerd.systemd.bus import Bus
from usercontainerd.systemd.manager import Manager, explain_failure
from usercontainerd.systemd.wire import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOTIFICATIONS = "org.freedesktop.Notifications"
_PATH = "/org/freedesktop/Notifications"
_CRITICAL = 2
_TIMEOUT = 10.0  # seconds that starting the desktop's service may take


def main(arguments: list[str], environment: dict[str, str]) -> int:
    """Show the notification."""
    name = check_container_name(arguments[0])
    paths = Paths.from_environment(environment, os.getuid())
    address = environment.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={paths.runtime_root}/bus"
    body = describe_failure(paths, address, name)
    hints = {
        "urgency": Variant("y", _CRITICAL),
        "category": Variant("s", "device.error"),
        "x-usercontainer-name": Variant("s", name),
    }
    try:
        bus = Bus.connect(address)
        try:
            bus.call(
                NOTIFICATIONS,
                _PATH,
                NOTIFICATIONS,
                "Notify",
                "susssasa{sv}i",
                *("usercontainerd", 0, "dialog-error", f"Container {name} failed", body, [], hints, -1),
                timeout=_TIMEOUT,
            )
        finally:
            bus.close()
    except SystemdError:
        return 0
    return 0


def describe_failure(paths: Paths, address: str, name: str) -> str:
    """One sentence on why, in plain text that no notification daemon takes for markup."""
    unit = unit_name(name)
    properties: dict[str, Any] = {}
    try:
        with Manager.connect(paths.runtime_root, address) as manager:
            properties = manager.unit_properties(unit)
    except SystemdError:
        pass
    record = read_exit(paths.container_data(name))
    text = (describe_exit(record) if record is not None else "") or explain_failure("failed", properties)
    text = f"{text[:1].upper()}{text[1:]}. See: journalctl --user -u {unit}"
    return escape_markup(printable(text)[:1000])


def escape_markup(text: str) -> str:
    """What an image or a registry has said must not become a link or a picture."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
