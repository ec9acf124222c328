"""The registry client against a registry that may do anything."""

import gzip
import hashlib
import json
import os
from collections.abc import Callable

import pytest

from tests.support.fakeregistry import OCI_MANIFEST, FakeRegistry, Handler, digest_of
from tests.support.registryclients import BLOB, DATA, PATH, Make
from usercontainerd.base.errors import (
    DigestMismatch,
    NoSuchImage,
    PullDenied,
    RegistryError,
    UsercontainerError,
)
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.connections import Limits
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import ConnectionFailed


def test_manifest_by_tag_and_digest(registry: FakeRegistry, make_client: Make) -> None:
    client = make_client()
    fetched = client.fetch_manifest("latest")
    assert fetched.data == registry.manifests["app", "latest"][0]
    assert fetched.digest == digest_of(fetched.data)
    assert fetched.media_type == OCI_MANIFEST
    assert client.fetch_manifest(fetched.digest).data == fetched.data
    accept = next(headers["accept"] for path, headers in registry.seen if "manifests" in path)
    assert "vnd.oci.image.index" in accept
    assert "manifest.list" in accept


def test_blob_with_progress(make_client: Make) -> None:
    pieces: list[bytes] = []
    counts: list[int] = []
    make_client().copy_blob(BLOB, pieces.append, counts.append)
    assert b"".join(pieces) == DATA
    assert counts[-1] == len(DATA)
    assert counts == sorted(counts)


def test_missing(make_client: Make) -> None:
    with pytest.raises(NoSuchImage, match=r"app:nothing: the registry has no such image: it is unknown"):
        make_client().fetch_manifest("nothing")
    missing = Descriptor("x", Digest("sha256:" + "0" * 64), 5)
    with pytest.raises(RegistryError, match="lacks the blob sha256:0000"):
        make_client().fetch_blob(missing, limit=10)


def test_changed_blob_names_both_digests(registry: FakeRegistry, make_client: Make) -> None:
    changed = bytearray(DATA)
    changed[1000] ^= 1
    registry.blobs[BLOB.digest] = bytes(changed)
    with pytest.raises(DigestMismatch) as caught:
        make_client().fetch_blob(BLOB, limit=1 << 20)
    assert BLOB.digest in str(caught.value)
    assert digest_of(bytes(changed)) in str(caught.value)


def test_changed_manifest_names_both_digests(registry: FakeRegistry, make_client: Make) -> None:
    data, _ = registry.manifests["app", "latest"]
    digest = digest_of(data)
    registry.manifests["app", digest] = (data + b" ", OCI_MANIFEST)
    with pytest.raises(DigestMismatch, match=digest):
        make_client().fetch_manifest(digest)
    # By tag the registry's own header tells.
    registry.rules["/v2/app/manifests/latest"] = lambda h: h.answer(
        200, data + b" ", {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest}
    )
    with pytest.raises(DigestMismatch, match=digest):
        make_client().fetch_manifest("latest")


def answer_without_length(data: bytes, status: int = 200) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, data, {"Content-Length": ""})


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (lambda h: h.answer(200, DATA[:-1]), RegistryError, "announces 699999 bytes"),
        (lambda h: h.answer(200, DATA + b"x"), RegistryError, "announces 700001 bytes"),
        (answer_without_length(DATA[:-1]), DigestMismatch, r"699999 of 700000 bytes"),
        (answer_without_length(DATA + b"x"), RegistryError, "more than the promised"),
        (lambda h: h.answer(200, gzip.compress(DATA), {"Content-Encoding": "gzip"}), RegistryError, "announces"),
        (lambda h: h.answer(500, b"oops"), RegistryError, "status 500"),
        (lambda h: h.answer(429, b"", {"Retry-After": "700"}), RegistryError, r"status 429.*wait 700 s"),
        (lambda h: h.answer(403, b'{"errors":[{"message":"go away\\u001b[2J"}]}'), PullDenied, r"go away\\x1b\[2J"),
        (lambda h: h.answer(401), PullDenied, "refuses access"),
        (lambda h: h.answer(302), RegistryError, "leads nowhere"),
        (lambda h: h.answer(302, b"", {"Location": PATH}), RegistryError, "more than 5 redirects"),
        (lambda h: h.answer(302, b"", {"Location": "file:///etc/passwd"}), RegistryError, "not allowed"),
        (lambda h: h.answer(302, b"", {"Location": "ftp://x/"}), RegistryError, "not allowed"),
        (lambda h: h.answer(302, b"", {"Location": "http://u:p@x/"}), RegistryError, "user name"),
    ],
)  # fmt: skip
def test_misbehaviour(
    registry: FakeRegistry, make_client: Make, rule: Callable[[Handler], None], error: type, message: str
) -> None:
    registry.rules[PATH] = rule
    with pytest.raises(error, match=message):
        try:
            make_client().fetch_blob(BLOB, limit=1 << 20)
        except UsercontainerError as caught:
            raise type(caught)(str(caught)) from None
    assert len(registry.seen) < 20


def test_endless_bodies_end(registry: FakeRegistry, make_client: Make) -> None:
    def pour(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for _ in range(10_000):
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    registry.rules["/v2/app/manifests/latest"] = pour
    with pytest.raises(RegistryError, match="longer than the 4194304 bytes"):
        make_client().fetch_manifest("latest")
    registry.rules["/v2/app/manifests/latest"] = lambda h: (
        pour(h) if False else h.answer(500, b"x" * 1_000_000)
    )
    with pytest.raises(RegistryError, match=r"status 500$"):
        try:
            make_client().fetch_manifest("latest")
        except RegistryError as error:
            raise RegistryError(error.what) from None


def test_silence_ends(registry: FakeRegistry, make_client: Make) -> None:
    import threading

    gate = threading.Event()
    registry.rules[PATH] = lambda handler: (gate.wait(10), None)[1]
    try:
        with pytest.raises(ConnectionFailed, match="no answer within the time"):
            make_client(limits=Limits(read=0.2), patience=Patience(tries=1)).fetch_blob(BLOB, limit=1 << 20)
    finally:
        gate.set()


def test_broken_connection_goes_on_where_it_was(registry: FakeRegistry, make_client: Make) -> None:
    def break_off(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.answer_blob(DATA)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:400_000])
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(2)

    registry.rules[PATH] = break_off
    assert make_client().fetch_blob(BLOB, limit=1 << 20) == DATA
    ranges = [headers.get("range") for path, headers in registry.seen if path == PATH]
    assert len(ranges) == 2
    assert ranges[1] is not None


def test_nobody_there(make_client: Make) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        make_client(host="127.0.0.1:1").fetch_manifest("latest")


def test_plain_http_only_where_configured(registry: FakeRegistry, make_client: Make) -> None:
    with pytest.raises(ConnectionFailed, match="TLS failed") as caught:
        make_client(insecure=False).fetch_manifest("latest")
    assert caught.value.tls
    assert "insecure" in (caught.value.hint or "")
    assert registry.seen == []


def test_token(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    client = make_client()
    client.fetch_manifest("latest")
    client.fetch_blob(BLOB, limit=1 << 20)
    tokens = [path for path in registry.paths() if path.startswith("/token")]
    assert tokens == ["/token?service=fake&scope=repository%3Aapp%3Apull"]


def test_token_with_password(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    make_client(Credentials("me", "pass")).fetch_manifest("latest")
    sent = [headers.get("authorization") for path, headers in registry.seen if path.startswith("/token")]
    assert sent == ["Basic bWU6cGFzcw=="]


def test_basic(registry: FakeRegistry, make_client: Make) -> None:
    def guard(handler: Handler) -> None:
        if handler.headers.get("Authorization") == "Basic bWU6cGFzcw==":
            handler.answer_content(handler.path)
        else:
            handler.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})

    registry.rules["/v2/app/manifests/latest"] = guard
    make_client(Credentials("me", "pass")).fetch_manifest("latest")
    with pytest.raises(PullDenied, match="refuses access"):
        make_client(Credentials("me", "wrong")).fetch_manifest("latest")
    with pytest.raises(PullDenied, match="refuses access"):
        make_client().fetch_manifest("latest")


def test_refusal_is_no_loop(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules["/v2/app/manifests/latest"] = lambda h: h.answer(
        401, b"", {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token"'}
    )
    registry.rules["/token"] = lambda h: h.answer(200, b'{"token": "x"}')
    with pytest.raises(PullDenied):
        make_client().fetch_manifest("latest")
    assert len(registry.seen) <= 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"token": "a\\r\\nX: y"}', "no usable token"),
        (b'{"token": ""}', "no usable token"),
        (b"nonsense", "not valid JSON"),
        (b'{"token": ["x"]}', "expected a string"),
        (b"[" * 900_000, "nested|not valid"),
    ],
)
def test_bad_tokens(registry: FakeRegistry, make_client: Make, body: bytes, message: str) -> None:
    registry.token = "secret"
    registry.rules["/token"] = lambda h: h.answer(200, body)
    with pytest.raises(UsercontainerError, match=message):
        make_client().fetch_manifest("latest")


@pytest.mark.parametrize(
    "realm",
    ["http://127.0.0.2:9/token", "file:///etc/passwd", "https://me:pw@host/x", "", "token", "gopher://x"],
)
def test_bad_realms(registry: FakeRegistry, make_client: Make, realm: str) -> None:
    registry.token, registry.realm = "secret", realm or "x"
    with pytest.raises(RegistryError, match=r"wants a token from .* not allowed"):
        make_client(Credentials("me", "pass")).fetch_manifest("latest")
    assert not any("authorization" in headers for _, headers in registry.seen)


def test_credentials_stay_with_their_host(registry: FakeRegistry, make_client: Make) -> None:
    with FakeRegistry() as other:
        other.add_blob(DATA)
        registry.token = "secret"

        def redirect(handler: Handler) -> None:
            handler.answer(307, b"", {"Location": f"http://{other.host}/v2/x/blobs/{BLOB.digest}"})

        registry.rules[PATH] = redirect
        client = make_client(Credentials("me", "pass"))
        client.fetch_manifest("latest")
        assert client.fetch_blob(BLOB, limit=1 << 20) == DATA
    assert any(headers.get("authorization") == "Bearer secret" for _, headers in registry.seen)
    assert other.seen
    assert not any("authorization" in headers for _, headers in other.seen)


def test_a_challenge_from_elsewhere_is_not_answered(registry: FakeRegistry, make_client: Make) -> None:
    with FakeRegistry() as other:
        other.token = "theirs"
        registry.rules[PATH] = lambda h: h.answer(307, b"", {"Location": f"http://{other.host}{PATH}"})
        with pytest.raises(PullDenied):
            make_client(Credentials("me", "pass")).fetch_blob(BLOB, limit=1 << 20)
    assert len(other.seen) == 1


def test_nothing_from_the_environment(
    registry: FakeRegistry, make_client: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:
        file.write("machine 127.0.0.1 login me password secret\n")
    os.chmod(netrc, 0o600)
    monkeypatch.setenv("NETRC", netrc)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    make_client().fetch_manifest("latest")
    assert not any("authorization" in headers for _, headers in registry.seen)


def test_sha512(registry: FakeRegistry, make_client: Make) -> None:
    digest = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    registry.blobs[digest] = DATA
    assert make_client().fetch_blob(Descriptor("x", Digest(digest), len(DATA)), limit=1 << 20) == DATA


def test_limit(make_client: Make) -> None:
    with pytest.raises(RegistryError, match="larger than the 1000 allowed"):
        make_client().fetch_blob(BLOB, limit=1000)


def test_garbage_errors_are_harmless(registry: FakeRegistry, make_client: Make) -> None:
    for body in (b"<html>", json.dumps({"errors": "x"}).encode(), b'{"errors": [5]}', b"\xff"):
        registry.rules["/v2/app/manifests/latest"] = lambda h, b=body: h.answer(404, b)  # type: ignore[misc]
        with pytest.raises(NoSuchImage):
            make_client().fetch_manifest("latest")
