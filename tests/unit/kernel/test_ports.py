"""Ports that are free, taken or impossible, on loopback."""

import socket

import pytest

from usercontainerd.base.errors import HostError
from usercontainerd.kernel.ports import check_ports_free


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
def test_a_taken_port_is_named_and_a_free_one_is_fine(kind: int, protocol: str) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            holder.listen()
        port = holder.getsockname()[1]
        for address in ("127.0.0.1", ""):
            with pytest.raises(HostError, match=rf"{port}.*in use.*ss -lp{protocol[0]}"):
                check_ports_free([(protocol, address, port - 1, 2)])
    check_ports_free([(protocol, "127.0.0.1", port, 1), (protocol, "", port, 1)])


def test_an_address_of_somebody_else() -> None:
    with pytest.raises(HostError, match=r"192\.0\.2\.77:5000"):
        check_ports_free([("tcp", "192.0.2.77", 5000, 1)])
