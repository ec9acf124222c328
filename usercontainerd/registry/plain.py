"""Small things from a registry without TLS: one request, one socket, and none of ``requests``.

Importing that takes longer than all else in a pull of a small image, or of one that is here already. This knows one
kind of answer, a plain success of the announced length; a redirect, a challenge, a proxy, chunks, a slow line and
whatever else there may be are for the full client, which asks again. It is no less safe: it sends no credentials, and
what it brings is checked by digest as all else is.
"""

from __future__ import annotations

import socket
import time

from usercontainerd import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 1.0  # seconds for one answer, in all: nothing is heard of how far it is meanwhile
MAX_HEAD = 16 * 1024


class PlainAnswer:
    """A success; ``headers`` by lower-case name, one that came twice is not there."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        self.headers = headers
        self.body = body


def is_direct(host: str, environment: Mapping[str, str]) -> bool:
    """Tell whether ``host`` (with or without port) is asked without a proxy between."""
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    return host.startswith(("localhost:", "127.")) or not any(environment.get(name) for name in names)


def fetch_plain(host: str, path: str, *, limit: int, accept: str = "*/*") -> PlainAnswer | None:
    """GET ``path`` from ``host``; None if there is no plain answer of at most ``limit`` bytes to be had in time."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: usercontainerd/{__version__}\r\n"
        f"Accept: {accept}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
    )
    end = time.monotonic() + PATIENCE
    try:
        name, port = _split_host(host)
        with socket.create_connection((name, port), timeout=PATIENCE) as connection:  # type: ignore[arg-type]
            connection.sendall(request.encode("ascii"))
            return _read_answer(connection, end, limit)
    except (OSError, ValueError):
        return None


def _split_host(host: str) -> tuple[bytes, int]:
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, "80"
    # Bytes: for text the socket would load the tables of international names.
    return name.strip("[]").encode("ascii"), int(port)


def _receive(connection: socket.socket, end: float, count: int) -> bytes:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    return connection.recv(count)


def _read_answer(connection: socket.socket, end: float, limit: int) -> PlainAnswer | None:
    data = bytearray()
    while (at := data.find(b"\r\n\r\n")) < 0:
        more = _receive(connection, end, 65536)
        if not more or len(data) > MAX_HEAD:
            return None
        data += more
    headers = parse_head(bytes(data[:at]))
    length = "" if headers is None else headers.get("content-length", "")
    if headers is None or not (length.isascii() and length.isdecimal()) or int(length) > limit:
        return None
    del data[: at + 4]
    while len(data) < int(length):
        more = _receive(connection, end, 256 * 1024)
        if not more:
            return None
        data += more
    return PlainAnswer(headers, bytes(data)) if len(data) == int(length) else None


def parse_head(head: bytes) -> dict[str, str] | None:
    """Return the headers of an answer if it is a plain success: 200, neither chunked nor encoded. Pure."""
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ")[:2] not in (["HTTP/1.1", "200"], ["HTTP/1.0", "200"]):
        return None
    headers: dict[str, str] = {}
    twice = set()
    for line in lines:
        name, colon, value = line.partition(":")
        key = name.lower()
        if not colon or not name or name != name.strip():
            return None
        if key in headers:
            twice.add(key)
        headers[key] = value.strip()
    if "transfer-encoding" in headers or headers.get("content-encoding", "identity") != "identity":
        return None
    for key in twice:
        del headers[key]
    return headers
