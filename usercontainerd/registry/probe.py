"""Asking a registry without TLS for the digest of a tag: one request, one socket, and none of ``requests``.

Importing that takes longer than all else that a pull does whose image is here already. What comes of this is only ever
compared with digests of what was verified before: whoever lies can claim that nothing has changed, which on a line
without TLS he could anyhow. Whatever is unusual (a redirect, a challenge, a slow answer) is for the full client.
"""

from __future__ import annotations

import socket
import time

from usercontainerd import __version__
from usercontainerd.oci.digest import Digest, is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PATIENCE = 3.0  # seconds in all
_MAX_ANSWER = 16 * 1024


def is_plain(host: str, environment: Mapping[str, str]) -> bool:
    """Tell whether the registry at ``host`` (with or without port) is asked directly: no proxy is between."""
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    return host.startswith(("localhost:", "127.")) or not any(environment.get(name) for name in names)


def probe_digest(host: str, repository: str, tag: str, accepted: Sequence[str]) -> Digest | None:
    """Return the digest of what ``tag`` leads to just now; None if that cannot be had in this way."""
    request = (
        f"HEAD /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {host}\r\n"
        f"User-Agent: usercontainerd/{__version__}\r\nAccept: {', '.join(accepted)}\r\nConnection: close\r\n\r\n"
    )
    end = time.monotonic() + _PATIENCE
    try:
        with socket.create_connection(_split_host(host), timeout=_PATIENCE) as connection:
            connection.sendall(request.encode("ascii"))
            return parse_answer(_read_head(connection, end))
    except (OSError, ValueError):
        return None


def _split_host(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, "80"
    return name.strip("[]"), int(port)


def _read_head(connection: socket.socket, end: float) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        left = end - time.monotonic()
        if left <= 0 or len(data) > _MAX_ANSWER:
            return b""
        connection.settimeout(left)
        more = connection.recv(4096)
        if not more:
            return b""
        data += more
    return data.partition(b"\r\n\r\n")[0]


def parse_answer(head: bytes) -> Digest | None:
    """Return the digest that the head of an answer names, if it is a plain success that names one. Pure."""
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ")[:2] not in (["HTTP/1.1", "200"], ["HTTP/1.0", "200"]):
        return None
    values = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "docker-content-digest":
            values.append(value.strip())
    return Digest(values[0]) if len(values) == 1 and is_digest(values[0]) else None
