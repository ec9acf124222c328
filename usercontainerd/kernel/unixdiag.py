"""What has been sent on a Unix socket of another process and its receiver has not read yet (sock_diag(7)).

By hand and ``_socket``: a stop waits for it.
"""

from __future__ import annotations

import _socket
import posix as os
import sys

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20  # <linux/sock_diag.h>
_REQUEST = 1
_SHOW_QUEUES = 0x10  # <linux/unix_diag.h>: UDIAG_SHOW_RQLEN
_QUEUES = 4  # UNIX_DIAG_RQLEN
_HEADER = 16  # struct nlmsghdr
_MESSAGE = 16  # struct unix_diag_msg


def find_socket(pid: int, fd: int) -> int | None:
    """The inode of the socket that a process has open as ``fd``; None if that is something else, or hidden."""
    try:
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return None
    return int(target[8:-1]) if target.startswith("socket:[") else None


def count_unread(inode: int) -> int | None:
    """Bytes that wait in the queue of the socket's peer, with the kernel's own; None if the kernel does not say."""
    try:
        line = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    except OSError:
        return None
    try:
        line.send(build_request(inode))
        return parse_answer(line.recv(4096))
    except OSError:
        return None
    finally:
        line.close()


def build_request(inode: int) -> bytes:
    """struct nlmsghdr and struct unix_diag_req, for one socket in any state."""
    words = (_BY_FAMILY | _REQUEST << 16) if sys.byteorder == "little" else (_BY_FAMILY << 16 | _REQUEST)
    family = bytes((_socket.AF_UNIX, 0, 0, 0))
    every = 0xFFFFFFFF
    head = b"".join(_word(number) for number in (40, words, 1, 0))
    return head + family + b"".join(_word(number) for number in (every, inode, _SHOW_QUEUES, every, every))


def parse_answer(data: bytes) -> int | None:
    """The send queue of the socket that the answer is about; None for an error. Pure."""
    if int.from_bytes(data[4:6], sys.byteorder) != _BY_FAMILY:
        return None
    end = min(len(data), int.from_bytes(data[:4], sys.byteorder))
    position = _HEADER + _MESSAGE
    while position + 4 <= end:
        length = int.from_bytes(data[position : position + 2], sys.byteorder)
        kind = int.from_bytes(data[position + 2 : position + 4], sys.byteorder)
        if kind == _QUEUES and length >= 12:
            return int.from_bytes(data[position + 8 : position + 12], sys.byteorder)
        position += max(4, (length + 3) & ~3)
    return None


def _word(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)
