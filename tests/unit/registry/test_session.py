"""Requests that are tried again, and logins: tokens renewed, shared, refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler
from tests.support.registryclients import BLOB, MANIFEST, PATH, Make
from usercontainerd.base.errors import PullDenied, RegistryError
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.client import RegistryClient
from usercontainerd.registry.configuration import Endpoint
from usercontainerd.registry.connections import Limits
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import ConnectionFailed, Transport

ME = Credentials("me", "pass")


def fail_first(count: int, fail: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Let ``fail`` answer so many times, then answer properly."""
    left = [count]

    def answer(handler: Handler) -> None:
        if left[0]:
            left[0] -= 1
            fail(handler)
        else:
            handler.answer_content(handler.path)

    return answer


def drop(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_failures_that_pass(registry: FakeRegistry, make_client: Make, status: int) -> None:
    registry.rules[MANIFEST] = fail_first(2, lambda h: h.answer(status, b"", {"Retry-After": "0"}))
    make_client().fetch_manifest("latest")
    assert registry.paths().count(MANIFEST) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_failures_that_stay(registry: FakeRegistry, make_client: Make, status: int) -> None:
    registry.rules[MANIFEST] = lambda h: h.answer(status, b'{"errors": [{"message": "no"}]}')
    with pytest.raises(RegistryError, match=rf"status {status}: no"):
        make_client().fetch_manifest("latest")
    assert registry.paths().count(MANIFEST) == 4


@pytest.mark.parametrize("status", [400, 403, 404, 410, 501])
def test_failures_that_mean_it(registry: FakeRegistry, make_client: Make, status: int) -> None:
    registry.rules[MANIFEST] = lambda h: h.answer(status)
    with pytest.raises((RegistryError, PullDenied, Exception)):
        make_client().fetch_manifest("latest")
    assert registry.paths().count(MANIFEST) == 1


def test_who_is_told_to_wait_long_is_told_so(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[MANIFEST] = lambda h: h.answer(429, b"", {"Retry-After": "21600"})
    with pytest.raises(RegistryError, match=r"status 429.*wait 21600 s"):
        make_client().fetch_manifest("latest")
    assert registry.paths().count(MANIFEST) == 1


def test_connections_that_are_dropped(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[MANIFEST] = fail_first(2, drop)
    make_client().fetch_manifest("latest")
    registry.rules[MANIFEST] = drop
    with pytest.raises(ConnectionFailed):
        make_client(patience=Patience(tries=2, first=0.001)).fetch_manifest("latest")


def test_nobody_there_is_not_asked_again(make_client: Make) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        make_client(host="127.0.0.1:1", patience=Patience(first=1000)).fetch_manifest("latest")


def test_failures_of_the_token_service_pass_too(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    answers = [503, 200]

    def serve(handler: Handler) -> None:
        handler.answer(answers.pop(0), b'{"token": "secret"}')

    registry.rules["/token"] = serve
    make_client().fetch_manifest("latest")
    assert answers == []


def tokens_asked(registry: FakeRegistry) -> int:
    return sum(path.startswith("/token") for path in registry.paths())


def test_a_token_that_runs_out_is_renewed(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "first"
    client = make_client(ME)
    client.fetch_manifest("latest")
    registry.token = "second"
    client.fetch_blob(BLOB, limit=1 << 20)
    assert tokens_asked(registry) == 2


def test_a_token_that_has_run_out_is_not_even_tried(
    registry: FakeRegistry, make_client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usercontainerd.registry.tokens._LEAST", 0.0)
    registry.token = "secret"
    registry.rules["/token"] = lambda h: h.answer(200, b'{"access_token": "secret", "expires_in": 0}')
    client = make_client(ME)
    client.fetch_manifest("latest")
    before = registry.paths()
    client.fetch_manifest("latest")
    after = registry.paths()[len(before) :]
    assert [path.partition("?")[0] for path in after] == ["/token", MANIFEST]


def test_one_token_for_all_threads(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    client = make_client(ME)
    client.fetch_manifest("latest")
    registry.token = "another"
    failures: list[BaseException] = []

    def fetch() -> None:
        try:
            client.fetch_blob(BLOB, limit=1 << 20)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tokens_asked(registry) == 2


def test_refresh_token(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    forms: list[str] = []

    def serve(handler: Handler) -> None:
        forms.append(handler.read_body().decode())
        reply = {"access_token": registry.token, "refresh_token": f"next-{len(forms)}"}
        handler.answer(200, json.dumps(reply).encode())

    registry.rules["/token"] = serve
    client = make_client(Credentials("<token>", "", "identity"))
    client.fetch_manifest("latest")
    registry.token = "another"
    client.fetch_manifest("latest")
    assert [form.rpartition("&refresh_token=")[2] for form in forms] == ["identity", "next-1"]
    assert "grant_type=refresh_token" in forms[0]
    assert "scope=repository%3Aapp%3Apull" in forms[0]
    assert not any("authorization" in headers for path, headers in registry.seen if path == "/token")


def test_a_token_of_another_domain_is_asked_for_without_the_password(
    registry: FakeRegistry, make_client: Make
) -> None:
    with FakeRegistry(address="127.0.0.2") as other:
        registry.token, registry.realm = "secret", f"http://{other.host}/token"
        with pytest.raises(RegistryError, match="wants a token from"):
            make_client(ME).fetch_manifest("latest")
        assert other.seen == []


def test_a_refused_login_says_where(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    registry.rules["/token"] = lambda h: h.answer(401, b'{"errors": [{"message": "who?"}]}')
    with pytest.raises(PullDenied, match=r"/token.*the login was refused: who\?.*log in again"):
        make_client(ME).fetch_manifest("latest")
    with pytest.raises(PullDenied, match=r"log in first"):
        make_client().fetch_manifest("latest")


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic realm=x",
        'Bearer realm="http://HOST/token"',
        "Negotiate",
        'Bearer service="x"',
        "x" * 10_000,
    ],
)
def test_refusals_without_end(registry: FakeRegistry, make_client: Make, challenge: str) -> None:
    challenge = challenge.replace("HOST", registry.host)
    registry.rules[PATH] = lambda h: h.answer(401, b"", {"WWW-Authenticate": challenge})
    registry.rules["/token"] = lambda h: h.answer(200, b'{"token": "x"}')
    with pytest.raises(PullDenied, match="refuses access"):
        make_client(ME).fetch_blob(BLOB, limit=1 << 20)
    assert len(registry.seen) <= 5


def test_cookies_are_not_kept(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[MANIFEST] = lambda h: h.answer(
        200, registry.manifests["app", "latest"][0], {"Set-Cookie": "tracked=yes; Path=/"}
    )
    client = make_client()
    client.fetch_manifest("latest")
    client.fetch_manifest("latest")
    assert not any("cookie" in headers for _, headers in registry.seen)


def test_through_a_proxy(registry: FakeRegistry) -> None:
    """A registry that only the proxy reaches: by CONNECT, which this one does not know, then without TLS."""
    proxy = f"http://{registry.host}"
    transport = Transport(
        {"http_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "127.0.0.1"},
        limits=Limits(connect=2, read=2),
        patience=Patience(tries=1),
    )
    data, media_type = registry.manifests["app", "latest"]
    base = "http://192.0.2.1:5000/v2/"
    registry.rules[base] = lambda h: h.answer(200)
    registry.rules[f"{base}app/manifests/latest"] = lambda h: h.answer(
        200, data, {"Content-Type": media_type}
    )
    endpoint = Endpoint(parse_reference("192.0.2.1:5000/app"), insecure=True)
    client = RegistryClient(endpoint, transport)
    assert client.fetch_manifest("latest").data == data
    client.close()
    assert [path for path in registry.paths() if path.startswith(base)] == registry.paths()
