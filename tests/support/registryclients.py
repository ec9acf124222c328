"""A fake registry with one image, and clients that lose their patience quickly."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.fakeregistry import FakeRegistry, digest_of
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.client import RegistryClient
from usercontainerd.registry.configuration import Endpoint
from usercontainerd.registry.connections import Limits
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import Transport

DATA = os.urandom(700_000)
BLOB = Descriptor("application/octet-stream", Digest(digest_of(DATA)), len(DATA))
PATH = f"/v2/app/blobs/{BLOB.digest}"
MANIFEST = "/v2/app/manifests/latest"
# Windows of a tenth of a second: what takes minutes in earnest takes no time here.
LIMITS = Limits(connect=2.0, read=1.0, answer=0.5, least=1000, window=0.3)


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
