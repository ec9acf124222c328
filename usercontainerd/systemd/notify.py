"""Telling the service manager how a start goes: sd_notify(3) in as little code as it takes.

The launcher loads this on its hot path, hence ``_socket``, the C half of ``socket``: it has all that is
needed here, and the Python half with its enumerations and selectors costs several milliseconds.
"""

from __future__ import annotations

import _socket
import os
import sys

from usercontainerd.base.errors import InvalidArgument, SystemdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def notify(address: str, message: str | bytes, fds: Sequence[int] = ()) -> None:
    """Send ``message``, lines of ``KEY=value``, to ``address``, the ``$NOTIFY_SOCKET`` of the process.

    ``address`` is a path, or ``@NAME`` in the abstract namespace; empty means that nobody listens: nothing
    is sent. ``fds`` go along (``FDSTORE=1``). Raises ``SystemdError`` when the manager cannot be reached.
    """
    if not address:
        return
    data = message.encode() if isinstance(message, str) else message
    try:
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            channel.sendmsg([data], render_rights(fds), _socket.MSG_NOSIGNAL, parse_address(address))
        finally:
            channel.close()
    except OSError as error:
        raise SystemdError(
            f"cannot notify the service manager: {error.strerror or error}", where=address
        ) from error


def render_fields(**fields: str | int) -> str:
    """Return the lines of a message; no value can add a field of its own: ``STATUS=`` is one line."""
    return "\n".join(f"{key}={' '.join(str(value).split())}" for key, value in fields.items())


def parse_address(address: str) -> str | bytes:
    """Return what the socket calls take for ``address``: a path, or ``@`` and an abstract name."""
    if address.startswith("@"):
        return b"\0" + os.fsencode(address[1:])
    if address.startswith("/"):
        return address
    raise InvalidArgument(f"not the address of a unix socket: {address}")


def render_rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that passes ``fds`` (unix(7), ``SCM_RIGHTS``)."""
    if not fds:
        return []
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds))]
