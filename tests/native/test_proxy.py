"""A registry with TLS that only a proxy reaches, by CONNECT."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry
from tests.support.hostile import LIMITS, send_raw
from tests.support.realregistry import Authority
from usercontainerd.base.errors import RegistryError
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.client import RegistryClient
from usercontainerd.registry.configuration import Endpoint
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import ConnectionFailed, Transport


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def serve_proxy(host: str, answer: bytes = b"HTTP/1.1 200 Fine\r\n\r\n") -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that leads all to ``host``; gives its URL and what it was asked."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                asked.append(client.recv(65536).partition(b"\r\n")[0])
                client.sendall(answer)
                name, _, port = host.rpartition(":")
                target = socket.create_connection((name, int(port)))
                for pair in ((client, target), (target, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*Authority(tmp_path / "authority").issue("server"))
    with FakeRegistry(tls=server) as fake:
        fake.add_image("app", "latest", [b""])
        yield fake


def open_client(proxy: str, *, insecure: bool) -> RegistryClient:
    """A client of ``registry.example``, a name that is not in this machine's DNS."""
    endpoint = Endpoint(parse_reference("registry.example/app"), insecure)
    transport = Transport({"https_proxy": proxy}, limits=LIMITS, patience=Patience(tries=1))
    return RegistryClient(endpoint, transport)


def test_tunnel(registry: FakeRegistry) -> None:
    with serve_proxy(registry.host) as (proxy, asked):
        client = open_client(proxy, insecure=True)
        assert client.fetch_manifest("latest").data == registry.manifests["app", "latest"][0]
        assert asked[0] == b"CONNECT registry.example:443 HTTP/1.1" or asked[0].endswith(b"HTTP/1.0")
        registry.rules["/v2/app/manifests/latest"] = send_raw(b"HTTP/1.1 200 OK\r\n\r\n", b"x", slowly=True)
        with pytest.raises(ConnectionFailed, match="too slow"):
            client.fetch_manifest("latest")
        client.close()


def test_the_registrys_certificate_counts(registry: FakeRegistry) -> None:
    with serve_proxy(registry.host) as (proxy, _):
        client = open_client(proxy, insecure=False)
        with pytest.raises(ConnectionFailed, match="TLS failed"):
            client.fetch_manifest("latest")
        client.close()
    assert registry.seen == []


def test_a_proxy_that_refuses(registry: FakeRegistry) -> None:
    with serve_proxy(registry.host, b"HTTP/1.1 403 No\r\n\r\n") as (proxy, _):
        client = open_client(proxy, insecure=False)
        with pytest.raises(RegistryError, match="403"):
            client.fetch_manifest("latest")
        client.close()
