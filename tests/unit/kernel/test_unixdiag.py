"""What a socket's peer has not read, as the kernel tells it."""

import os
import socket

import pytest

from usercontainerd.kernel.unixdiag import count_unread, find_socket, parse_answer


def test_the_queue_of_a_socket_is_known_until_its_peer_has_read_it() -> None:
    writer, reader = socket.socketpair()
    with writer, reader:
        inode = find_socket(os.getpid(), writer.fileno())
        assert inode is not None
        if count_unread(inode) is None:
            pytest.skip("this kernel has no sock_diag for Unix sockets")
        assert count_unread(inode) == 0
        writer.send(b"a line\n")
        assert (count_unread(inode) or 0) >= 7
        reader.recv(100)
        assert count_unread(inode) == 0
    assert count_unread(inode) is None


def test_what_is_no_socket_is_not_asked_about() -> None:
    read, write = os.pipe()
    try:
        assert find_socket(os.getpid(), read) is None
    finally:
        os.close(read)
        os.close(write)
    assert find_socket(os.getpid(), read) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 16, b"\x24\0\0\0\x14\0", b"\xff" * 40])
def test_an_answer_that_is_none(data: bytes) -> None:
    assert parse_answer(data) is None
