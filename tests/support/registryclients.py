"""A fake registry with one image, and clients that lose their patience quickly."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.support.fakeregistry import FakeRegistry, digest_of
from tests.support.hostile import LIMITS, MANIFEST
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.client import RegistryClient
from usercontainerd.registry.configuration import Endpoint
from usercontainerd.registry.connections import Limits
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import Transport

__all__ = ["BLOB", "DATA", "LIMITS", "MANIFEST", "PATH", "Make", "close_under", "make_client", "registry"]

DATA = os.urandom(700_000)
BLOB = Descriptor("application/octet-stream", Digest(digest_of(DATA)), len(DATA))
PATH = f"/v2/app/blobs/{BLOB.digest}"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        fake.add_blob(DATA)
        fake.add_image("app", "latest", [b""])
        yield fake


class Make:
    """Makes clients of a registry; all are closed after the test."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry
        self._clients: list[RegistryClient] = []

    def __call__(
        self,
        credentials: Credentials | None = None,
        *,
        host: str | None = None,
        insecure: bool = True,
        limits: Limits | None = None,
        patience: Patience | None = None,
    ) -> RegistryClient:
        client = RegistryClient(
            Endpoint(parse_reference(f"{host or self._registry.host}/app"), insecure),
            Transport(
                limits=limits or Limits(connect=2, read=2),
                patience=patience or Patience(tries=4, first=0.001),
            ),
            find_credentials=lambda: credentials,
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def make_client(registry: FakeRegistry) -> Iterator[Make]:
    make = Make(registry)
    yield make
    make.close()


def close_under(
    client: RegistryClient, registry: FakeRegistry, fetches: Mapping[str, Callable[[], object]]
) -> list[type[BaseException]]:
    """Close a client while each path of ``fetches`` is being fetched in a thread; return what the threads raised."""
    caught: list[type[BaseException]] = []

    def fetch(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            caught.append(type(error))

    threads = [threading.Thread(target=fetch, args=(call,), daemon=True) for call in fetches.values()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while not set(fetches) <= set(registry.paths()):
        assert time.monotonic() < end, "not everything has been asked for"
        registry.stopped.wait(0.005)
    client.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return caught
