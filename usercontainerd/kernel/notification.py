"""sd_notify(3): one datagram to the service manager. Uses ``_socket``: importing ``socket`` costs 8 ms more."""

from __future__ import annotations

import _socket

from usercontainerd.base.errors import HostError


def notify(address: str | None, message: str) -> None:
    """Send ``message`` (lines of ``KEY=value``) to ``$NOTIFY_SOCKET``; without an address nothing happens.

    An address that starts with ``@`` is in the abstract namespace.
    """
    if not address:
        return
    if address[0] not in "/@":
        raise HostError("not a path and not an abstract address", where=f"NOTIFY_SOCKET={address}")
    target = "\0" + address[1:] if address[0] == "@" else address
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sender.connect(target)
        sender.send(message.encode("utf-8", "replace"))
    except OSError as error:
        raise HostError(f"cannot notify the service manager: {error.strerror}", where=address) from error
    finally:
        sender.close()


def one_line(text: str, limit: int = 400) -> str:
    """Make ``text`` fit for a ``STATUS=`` line: one line, printable, not endless."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit]
