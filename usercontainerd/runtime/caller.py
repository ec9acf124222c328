"""Between a command that runs a container in the foreground and the container's unit: a socket in the bundle.

Nobody but systemd is a container's parent, and no process of ours stands in its data path: the command lends its own
descriptors. It listens, and is met twice, each time by a process of the unit that has the same user::

    launcher  --- "streams" or "terminal" --->  command
              <-- "0 1 2" and descriptors ---            (streams: which of the standard ones they are to be)
              --- "master", a terminal ------>           (terminal: once crun has made it; its size is set)
              <-- "seen" ---------------------
              --- "failed STATUS TEXT" ------>           (instead, or later)
    cleanup   --- "ended RESULT CODE STATUS RAN" -->     (last, when everything is put away)

Where nobody listens, a container has the unit's own: a unit that is started by ``systemctl`` is no other than this.
Imports nothing but ``_socket``: launcher and cleanup load it where there is a socket.
"""

from __future__ import annotations

import _socket
import os
import sys

from usercontainerd.base.errors import Busy, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SOCKET = "caller"  # in the bundle
CONSOLE = (
    "console"  # beside it: where crun hands over the terminal that it has made (runtime-spec, terminals)
)
STREAMS = b"streams"
TERMINAL = b"terminal"
MASTER = b"master"
SEEN = b"seen"
FAILED = b"failed"
ENDED = b"ended"
PATIENCE = 10.0  # seconds that a command has for an answer: it may be stopped by its shell
_LIMIT = 8192
_INT = 4


class Line:
    """One connection, whole packets with descriptors; who is at the other end has our user."""

    __slots__ = ("_channel",)

    def __init__(self, channel: _socket.socket) -> None:
        self._channel = channel
        channel.settimeout(PATIENCE)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._channel.fileno()

    def is_own(self) -> bool:
        """Tell whether the other end is our own user's (unix(7), ``SO_PEERCRED``)."""
        credentials = self._channel.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 3 * _INT)
        return int.from_bytes(credentials[_INT : 2 * _INT], sys.byteorder) == os.getuid()

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> bool:
        """Send a packet; False if the other end is gone, or takes nothing."""
        rights = b"".join(fd.to_bytes(_INT, sys.byteorder) for fd in fds)
        passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
        try:
            self._channel.sendmsg([packet[:_LIMIT]], passed, _socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[bytes, list[int]]:
        """Return a packet, empty at the end or when none comes, and its descriptors."""
        try:
            data, ancillary, _, _ = self._channel.recvmsg(
                _LIMIT, _socket.CMSG_SPACE(_INT * 3), _socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return b"", []
        fds = [
            int.from_bytes(payload[i : i + _INT], sys.byteorder)
            for level, kind, payload in ancillary
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            for i in range(0, len(payload) - _INT + 1, _INT)
        ]
        return data, fds

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class Listener:
    """A socket that waits for processes of the unit, in a directory of our own. Raises ``Busy`` if it is taken."""

    def __init__(self, directory: str, name: str) -> None:
        self.path = f"{directory}/{name}"
        if os.path.lexists(self.path):
            if (line := call(directory, name)) is not None:
                line.close()
                raise Busy("another command waits for this container", where=self.path)
            os.unlink(self.path)
        # A stream for crun's console; packets for ourselves.
        kind = _socket.SOCK_STREAM if name == CONSOLE else _socket.SOCK_SEQPACKET
        self._channel = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
        try:
            _with_short_path(directory, name, self._channel.bind)
            self._channel.listen(4)
        except OSError as error:
            raise RuntimeFailure(f"cannot listen: {error.strerror}", where=self.path) from error

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._channel.fileno()

    def accept(self) -> Line:
        """Take a connection."""
        # The C half of accept() gives a bare descriptor.
        fd, _ = self._channel._accept()  # type: ignore[attr-defined]
        return Line(_socket.socket(fileno=fd))

    def close(self) -> None:
        """Stop listening; the socket's file goes."""
        self._channel.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def call(directory: str, name: str = SOCKET) -> Line | None:
    """Connect to who listens; None if nobody does."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        _with_short_path(directory, name, channel.connect)
    except OSError:
        channel.close()
        return None
    return Line(channel)


def _with_short_path(directory: str, name: str, act: Callable[[str], object]) -> None:
    """Name the socket by a descriptor of its directory: unix(7) has room for 107 bytes only."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def render_end(environment: Mapping[str, str], *, ran: bool) -> bytes:
    """What ``cleanup`` tells of a run, from its environment (systemd.exec(5))."""
    words = (environment.get(key) or "-" for key in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
    return ENDED + f" {' '.join(words)} {int(ran)}".encode()
