"""What a unit's process tells systemd: sd_notify(3), one datagram to the manager, and lines for the journal.

Uses ``_socket``: importing ``socket`` costs 8 ms more.
"""

from __future__ import annotations

import _socket
import posix as os
import sys

from usercontainerd.base.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def notify(address: str | None, message: str) -> None:
    """Send ``message`` (lines of ``KEY=value``) to ``$NOTIFY_SOCKET``; without an address nothing happens.

    An address that starts with ``@`` is in the abstract namespace.
    """
    if address:
        _send(address, message.encode("utf-8", "replace"))


def notify_and_wait(address: str | None, message: str) -> None:
    """As ``notify``, but return only when the manager has read the message (sd_notify(3), ``BARRIER=1``).

    For a message about a process that may be gone a moment later: the manager could make nothing of it then.
    """
    if not address:
        return
    _send(address, message.encode("utf-8", "replace"))
    reader, writer = os.pipe()
    try:
        _send(address, b"BARRIER=1", writer)
        os.close(writer)
        writer = -1
        os.read(reader, 1)  # ends when the manager closes its copy
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _send(address: str, message: bytes, fd: int | None = None) -> None:
    if address[0] not in "/@":
        raise HostError("not a path and not an abstract address", where=f"NOTIFY_SOCKET={address}")
    target = "\0" + address[1:] if address[0] == "@" else address
    passed = [] if fd is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sender.connect(target)
        sender.sendmsg([message], passed)
    except OSError as error:
        raise HostError(f"cannot notify the service manager: {error.strerror}", where=address) from error
    finally:
        sender.close()


def write_line(text: str, priority: int, environment: Mapping[str, str]) -> None:
    """Write a line to standard error; where that is the journal's, with its priority (sd-daemon(3)): 3 is an error,
    4 a warning, 5 a notice.
    """
    prefix = f"<{priority}>" if is_journal(environment.get("JOURNAL_STREAM", "")) else ""
    os.write(2, f"{prefix}{text}\n".encode("utf-8", "replace"))


def is_journal(stream: str) -> bool:
    """Tell whether standard error is ``$JOURNAL_STREAM``, ``DEVICE:INODE`` (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def one_line(text: str, limit: int = 400) -> str:
    """Make ``text`` fit for a ``STATUS=`` line: one line, printable, not endless."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit]
