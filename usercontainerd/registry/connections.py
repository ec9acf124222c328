"""Connections that do not wait for ever, whatever the other side does, and that another thread can end.

``http.client`` knows one timeout: for each single receive. A server that sends a byte now and then, headers
without end or ``100 Continue`` again and again would hold it for ever. Here a reader beneath its buffer counts
bytes and the time spent waiting for them: an answer's headers must be complete in time and be small, and a
body must keep a minimum rate. Time in which nobody wants to read does not count.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
import weakref
from functools import partial

import urllib3
from requests.adapters import HTTPAdapter

from usercontainerd.base.records import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_HEADERS = 256 * 1024  # bytes before the body, all interim answers included


@dataclass(frozen=True)
class Limits:
    """In seconds: ``connect`` for each address, ``read`` without a byte, ``answer`` until all headers are there.

    ``write`` is for each piece of a body that is sent. One that comes brings at least ``least`` bytes in each
    ``window`` seconds of waiting.
    """

    connect: float = 15.0
    read: float = 60.0
    write: float = 60.0
    answer: float = 120.0
    least: int = 16 * 1024
    window: float = 60.0


class TooSlow(OSError):
    """The other side keeps us waiting."""


class TooMuch(OSError):
    """The other side sends headers without end."""


class Guard:
    """What all connections of one transport share: its limits, and the switch that ends them."""

    def __init__(self, limits: Limits, closed: threading.Event | None = None) -> None:
        self.limits = limits
        self.closed = closed or threading.Event()
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def watch(self, holder: object) -> None:
        """Remember something with a ``sock``, to end it with the rest."""
        with self._lock:
            self._open.add(holder)

    def close(self) -> None:
        """End all transfers: reading and writing in other threads fails at once."""
        self.closed.set()
        with self._lock:
            holders = list(self._open)
        for holder in holders:
            sock = holder.sock
            if sock is not None:
                try:
                    # Not SSLSocket's own, which takes the TLS state away from whoever is reading.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # not connected any more


class Reader(io.RawIOBase):
    """The receiving side of one answer."""

    def __init__(self, sock: socket.socket, guard: Guard) -> None:
        self.sock = sock
        # Holds the socket open for as long as the answer is read, as http.client expects of a file.
        self._hold = sock.makefile("rb", buffering=0)
        self._limits = guard.limits
        self._received = 0
        self._waited = 0.0
        self._in_headers = True
        guard.watch(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def begin_body(self) -> None:
        """From here on the rate counts."""
        self._in_headers = False
        self._received, self._waited = 0, 0.0

    def readinto(self, buffer: Any) -> int:
        """Receive what is there, at least a byte; 0 at the end. Raises ``OSError``, such as ``TooSlow``."""
        while True:
            limit = self._limits.answer if self._in_headers else self._limits.window
            timeout = max(0.001, min(self._limits.read, limit - self._waited))
            self.sock.settimeout(timeout)
            start = time.monotonic()
            try:
                count = self.sock.recv_into(buffer)
            except TimeoutError:
                self._waited += time.monotonic() - start
                if timeout >= self._limits.read:
                    raise TooSlow(0, "no answer within the time allowed") from None
                self._check()
                continue
            self._waited += time.monotonic() - start
            self._received += count
            self._check()
            return count

    def _check(self) -> None:
        if self._in_headers:
            if self._waited >= self._limits.answer:
                raise TooSlow(0, "no complete answer within the time allowed")
            if self._received > MAX_HEADERS:
                raise TooMuch(0, f"the headers are longer than the {MAX_HEADERS} bytes allowed")
        elif self._waited >= self._limits.window:
            if self._received < self._limits.least:
                raise TooSlow(0, f"{self._received} bytes in {self._waited:.0f} s are too slow")
            self._received, self._waited = 0, 0.0

    def close(self) -> None:
        """Let the socket go."""
        if not self.closed:
            self._hold.close()
        super().close()


class _Socket:
    """What ``http.client.HTTPResponse`` takes for a socket: it asks for nothing but a file."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader)


class Answer(http.client.HTTPResponse):
    """An answer that is read through a ``Reader``."""

    def __init__(self, sock: socket.socket, *arguments: Any, guard: Guard, **others: Any) -> None:
        self._reader = Reader(sock, guard)
        super().__init__(_Socket(self._reader), *arguments, **others)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Read the headers."""
        super().begin()
        self._reader.begin_body()


class _Guarded:
    """What plain and TLS connections have in common."""

    guard: Guard
    sock: socket.socket | None

    def __init__(self, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.response_class = partial(Answer, guard=self.guard)
        self.guard.watch(self)

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.guard.limits.write)
        if self.guard.closed.is_set():
            raise ConnectionAbortedError("closed")
        super().send(data)  # type: ignore[misc]


def build_pools(guard: Guard) -> dict[str, Callable[..., Any]]:
    """Return connection pools of ``guard`` for urllib3, by scheme."""
    share = {"guard": guard}
    plain = type("PlainConnection", (_Guarded, urllib3.connection.HTTPConnection), share)
    secure = type("SecureConnection", (_Guarded, urllib3.connection.HTTPSConnection), share)
    return {
        "http": type("PlainPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


class GuardedAdapter(HTTPAdapter):
    """Makes ``requests`` use connections of ``guard``; up to ``connections`` to a host are kept for later.

    Their TLS is as ``context`` says: ``requests`` adds no authorities of its own.
    """

    def __init__(self, guard: Guard, connections: int, context: ssl.SSLContext | None = None) -> None:
        if (
            context is not None
            and context.check_hostname
            and getattr(urllib3, "__version__", "").startswith("1.")
        ):
            # It tells OpenSSL no name that is an address, and compares names itself where OpenSSL does not.
            context.check_hostname = False
        self._pools = build_pools(guard)
        self._options: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=connections, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """As it says."""
        super().init_poolmanager(connections, maxsize, block, **options, **self._options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """As it says; a SOCKS proxy has connections of its own kind."""
        manager = super().proxy_manager_for(proxy, **options, **self._options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, conn: Any, _url: str, verify: Any, _cert: Any) -> None:
        """Leave the certificates to ``context``."""
        conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"
