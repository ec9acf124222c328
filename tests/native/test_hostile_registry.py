"""A pull from a registry that fails, lies or attacks: a clear error within limits, and a store as it was before."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, build_tar, file
from tests.support.hostile import CASES, MANIFEST, Case, answer, blob_path, list_cases, send_raw
from tests.support.pulling import SMALL, pull, snapshot, wait_for_children
from tests.support.realregistry import Authority
from tests.support.registryclients import close_under
from usercontainerd.base.errors import Cancelled, RegistryError, UsercontainerError
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import list_images
from usercontainerd.engine.registries.access import RegistryAccess
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.certificates import Certificates
from usercontainerd.registry.client import RegistryClient
from usercontainerd.registry.configuration import Endpoint
from usercontainerd.registry.transport import Transport

pytestmark = pytest.mark.usefixtures("hasty")
CONTENT = build_tar(file("data", os.urandom(100_000)))


def test_the_image_itself_is_fine(context: Context, registry: FakeRegistry) -> None:
    """Else the cases below would fail for another reason."""
    registry.add_image("app", "latest", [SMALL, CONTENT])
    pull(context, registry)


@pytest.mark.parametrize(("setup", "message"), list(list_cases()))
def test_case(context: Context, registry: FakeRegistry, setup: Case, message: str) -> None:
    manifest = registry.add_image("app", "latest", [SMALL, CONTENT])
    registry.add_image("good", "latest", [SMALL])
    good = pull_image(context, f"{registry.host}/good")
    before = snapshot(context)
    setup(registry, manifest)
    with pytest.raises(UsercontainerError, match=message):
        try:
            pull_image(
                context, f"{registry.host}/app", access=RegistryAccess(credentials=Credentials("me", "pw"))
            )
        except UsercontainerError as error:
            raise UsercontainerError(str(error)) from error
    assert snapshot(context) == before
    assert [image.id for image in list_images(context)] == [good.id]
    assert len(registry.seen) < 60
    wait_for_children()


def test_there_are_many_cases() -> None:
    assert len(CASES) > 40


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_failures_that_pass(context: Context, registry: FakeRegistry, status: int) -> None:
    manifest = registry.add_image("app", "latest", [SMALL, CONTENT])
    path = blob_path(manifest)

    def fail_once(handler: object) -> None:
        del registry.rules[path]
        answer(status, Retry_After="0")(handler)  # type: ignore[arg-type]

    registry.rules[path] = fail_once
    pull(context, registry)


@pytest.fixture
def secure(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """A registry with TLS that the user trusts; not started yet."""
    authority = Authority(tmp_path / "authority")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server"))
    registry = FakeRegistry(tls=server)
    trusted = Path(context.paths.config).parent / "containers" / "certs.d" / registry.host
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return registry


def test_tls_is_not_left(context: Context, registry: FakeRegistry, secure: FakeRegistry) -> None:
    """A registry with TLS leads to one without: nothing is asked there."""
    with secure:
        secure.add_image("app", "latest", [SMALL])
        manifest = secure.add_image("app", "latest", [SMALL, CONTENT])
        registry.add_image("app", "latest", [SMALL, CONTENT])
        path = blob_path(manifest)
        secure.rules[path] = answer(307, Location=f"http://{registry.host}{path}")
        with pytest.raises(RegistryError, match="without TLS"):
            pull_image(context, f"{secure.host}/app")
        secure.token, secure.realm = "secret", f"http://{registry.host}/token"
        with pytest.raises(RegistryError, match="wants a token from"):
            pull_image(context, f"{secure.host}/app")
        assert registry.seen == []
        del secure.rules[path]
        secure.token = None
        pull_image(context, f"{secure.host}/app")


def test_a_stranger_with_a_certificate_of_his_own(context: Context, secure: FakeRegistry) -> None:
    trusted = Path(context.paths.config).parent / "containers" / "certs.d" / secure.host
    (trusted / "ca.crt").unlink()
    with secure:
        with pytest.raises(RegistryError, match="TLS failed"):
            pull_image(context, f"{secure.host}/app")
        assert secure.seen == []


@pytest.mark.parametrize(("address", "fine"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_a_certificate_counts_for_its_names(tmp_path: Path, address: str, fine: bool) -> None:
    """Also where the name is an address."""
    authority = Authority(tmp_path / "authority")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server"))
    certificates = Certificates(authorities=(str(authority.certificate),))
    with FakeRegistry(address=address, tls=server) as registry:
        endpoint = Endpoint(parse_reference(f"{registry.host}/app"))
        client = RegistryClient(endpoint, Transport({}, certificates))
        registry.add_image("app", "latest", [SMALL])
        if fine:
            client.fetch_manifest("latest")
        else:
            with pytest.raises(RegistryError, match="TLS failed"):
                client.fetch_manifest("latest")
            assert registry.seen == []
        client.close()


def test_closing_ends_a_transfer_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server"))
    certificates = Certificates(authorities=(str(authority.certificate),))
    with FakeRegistry(tls=server) as registry:
        registry.rules[MANIFEST] = send_raw(b"HTTP/1.1 200 OK\r\n\r\n", b"x", slowly=True)
        endpoint = Endpoint(parse_reference(f"{registry.host}/app"))
        client = RegistryClient(endpoint, Transport({}, certificates))
        fetches = {MANIFEST: lambda: client.fetch_manifest("latest")}
        assert close_under(client, registry, fetches) == [Cancelled]


def test_a_registry_without_tls_that_should_have_it(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [SMALL])
    with pytest.raises(RegistryError, match="TLS failed"):
        pull_image(context, f"{registry.host}/app", access=RegistryAccess(tls_verify=True))
    assert registry.seen == []
    assert MANIFEST not in registry.paths()
