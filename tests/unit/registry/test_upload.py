"""Pushing to registries that mean well, break off, refuse and mislead."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable

import pytest

from tests.support.fakeregistry import OCI_MANIFEST, FakeRegistry, Handler, digest_of
from tests.support.registryclients import BLOB, DATA, Make
from usercontainerd.base.errors import Cancelled, DigestMismatch, PullDenied, RegistryError
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.registry.authentication import Credentials
from usercontainerd.registry.connections import Limits
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import ConnectionFailed
from usercontainerd.registry.upload import Uploader

NEW = os.urandom(300_000)
NEW_BLOB = Descriptor("application/octet-stream", Digest(digest_of(NEW)), len(NEW))
ME = Credentials("me", "pass")


def uploader(make_client: Make, *, chunk: int = 100_000) -> Uploader:
    return Uploader(make_client(ME).session, chunk=chunk)


def methods(registry: FakeRegistry) -> list[str]:
    """Those of requests below the repository."""
    return [
        m for m, path in zip(registry.methods, registry.paths(), strict=True) if path.startswith("/v2/app")
    ]


def test_whole(registry: FakeRegistry, make_client: Make) -> None:
    counts: list[int] = []
    registry.token = "secret"
    uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW), counts.append)
    assert registry.blobs[NEW_BLOB.digest] == NEW
    assert counts[-1] == len(NEW)
    assert counts == sorted(counts)
    assert methods(registry) == ["POST", "POST", "PUT"]  # the first without a token
    assert any("scope=repository%3Aapp%3Apull%2Cpush" in path for path in registry.paths())
    length = next(h["content-length"] for path, h in registry.seen if "digest=" in path)
    assert length == str(len(NEW))


def test_empty(registry: FakeRegistry, make_client: Make) -> None:
    empty = Descriptor("x", Digest(digest_of(b"")), 0)
    uploader(make_client).put_blob(empty, io.BytesIO())
    assert registry.blobs[empty.digest] == b""


def test_has(registry: FakeRegistry, make_client: Make) -> None:
    target = uploader(make_client)
    assert target.has_blob(BLOB)
    assert not target.has_blob(NEW_BLOB)
    assert not target.has_blob(Descriptor("x", BLOB.digest, 5))  # another size: it cannot be that
    registry.rules[f"/v2/app/blobs/{BLOB.digest}"] = lambda h: h.answer(403)
    with pytest.raises(PullDenied):
        target.has_blob(BLOB)


def test_mount(registry: FakeRegistry, make_client: Make) -> None:
    target = uploader(make_client)
    registry.token = "secret"
    registry.uploads.owners[BLOB.digest] = {"library/other"}
    assert target.mount_blob(BLOB, "library/other")
    scopes = next(path for path in registry.paths() if path.startswith("/token"))
    assert scopes.endswith("scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Alibrary%2Fother%3Apull")
    assert not target.mount_blob(NEW_BLOB, "library/other")
    assert registry.uploads.cancelled == 1  # what it has begun instead
    assert registry.uploads.open == {}


def read_and_answer(status: int, headers: dict[str, str]) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.read_body()
        handler.answer(status, b"", headers)

    return answer


def wait_for_the_end(handler: Handler) -> None:
    handler.registry.stopped.wait(10)


def break_off(handler: Handler) -> None:
    """Take a part of the body and go."""
    handler.rfile.read(50_000)
    handler.close_connection = True


@pytest.mark.parametrize("failure", [413, 500, 502, break_off])
def test_what_does_not_go_whole_goes_in_chunks(
    registry: FakeRegistry, make_client: Make, failure: int | Callable[[Handler], None]
) -> None:
    def put(handler: Handler) -> None:
        if handler.headers["Content-Length"] == "0":
            name = handler.path.partition("?")[0].rpartition("/")[2]
            registry.uploads.take(handler, name, {"digest": NEW_BLOB.digest})
        elif callable(failure):
            failure(handler)
        else:
            handler.read_body()
            handler.answer(failure)

    registry.uploads.rules["PUT"] = put
    counts: list[int] = []
    uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW), counts.append)
    assert registry.blobs[NEW_BLOB.digest] == NEW
    assert methods(registry) == ["POST", "PUT", "DELETE", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
    ranges = [headers["content-range"] for _, headers in registry.seen if "content-range" in headers]
    assert ranges == ["0-99999", "100000-199999", "200000-299999"]


def test_a_chunk_that_breaks_off_goes_on(registry: FakeRegistry, make_client: Make) -> None:
    registry.uploads.rules["PUT"] = lambda h: refuse_bodies(registry, h)
    broken = [True]

    def patch(handler: Handler) -> None:
        name = handler.path.partition("?")[0].rpartition("/")[2]
        if broken and registry.uploads.open[name]:
            broken.clear()
            registry.uploads.open[name] += handler.rfile.read(30_000)
            handler.close_connection = True
        else:
            registry.uploads.take(handler, name, {})

    registry.uploads.rules["PATCH"] = patch
    uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))
    assert registry.blobs[NEW_BLOB.digest] == NEW
    ranges = [headers["content-range"] for _, headers in registry.seen if "content-range" in headers]
    assert ranges == ["0-99999", "100000-199999", "130000-229999", "230000-299999"]


def refuse_bodies(registry: FakeRegistry, handler: Handler) -> None:
    """Take uploads in chunks only."""
    name = handler.path.partition("?")[0].rpartition("/")[2]
    if handler.headers["Content-Length"] == "0":
        registry.uploads.take(handler, name, {"digest": NEW_BLOB.digest})
    else:
        handler.read_body()
        handler.answer(413)


def test_a_registry_wants_larger_chunks(registry: FakeRegistry, make_client: Make) -> None:
    registry.uploads.rules["PUT"] = lambda h: refuse_bodies(registry, h)
    begin = "/v2/app/blobs/uploads/"

    def post(handler: Handler) -> None:
        handler.read_body()
        name = str(len(registry.seen))
        registry.uploads.open[name] = bytearray()
        handler.answer(202, b"", {"Location": begin + name, "OCI-Chunk-Min-Length": "200000"})

    registry.rules[begin] = post
    uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))
    ranges = [headers["content-range"] for _, headers in registry.seen if "content-range" in headers]
    assert ranges == ["0-199999", "200000-299999"]


@pytest.mark.parametrize("given", ["0-0", "", "5-9", "0-999999999", "nonsense", "0-49999"])
def test_nonsense_about_how_far_it_is(registry: FakeRegistry, make_client: Make, given: str) -> None:
    registry.uploads.rules["PUT"] = lambda h: refuse_bodies(registry, h)

    def patch(handler: Handler) -> None:
        handler.read_body()
        handler.answer(204, b"", {"Range": given, "Location": handler.path})

    registry.uploads.rules["PATCH"] = patch
    with pytest.raises(RegistryError):
        uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))
    assert len(registry.seen) < 60
    assert registry.uploads.open == {}


def test_given_up_after_some_tries(registry: FakeRegistry, make_client: Make) -> None:
    for method in ("PUT", "PATCH"):
        registry.uploads.rules[method] = break_off
    client = make_client(patience=Patience(tries=3, first=0.001))
    with pytest.raises(ConnectionFailed):
        Uploader(client.session, chunk=100_000).put_blob(NEW_BLOB, io.BytesIO(NEW))
    assert registry.uploads.open == {}
    assert len(registry.seen) < 40


def test_refusals_are_not_tried_again(registry: FakeRegistry, make_client: Make) -> None:
    wrong = Descriptor("x", Digest(digest_of(b"other")), len(NEW))
    with pytest.raises(RegistryError, match=r"status 400: digest invalid"):
        uploader(make_client).put_blob(wrong, io.BytesIO(NEW))
    assert methods(registry) == ["POST", "PUT", "DELETE"]
    registry.rules["/v2/app/blobs/uploads/"] = lambda h: h.answer(
        403, b'{"errors": [{"message": "not yours"}]}'
    )
    with pytest.raises(PullDenied, match="not yours"):
        uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "does not say where"),
        ("file:///etc/passwd", "not allowed"),
        ("ftp://x/y", "not allowed"),
        ("http://me:pw@127.0.0.1/x", "user name"),
        ("http://x y/", "not a URL"),
    ],
)
def test_bad_upload_locations(registry: FakeRegistry, make_client: Make, location: str, message: str) -> None:
    registry.uploads.location = lambda path: location
    with pytest.raises(RegistryError, match=message):
        uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))
    assert registry.methods.count("PUT") == 0


def test_an_upload_elsewhere_gets_no_credentials(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    with FakeRegistry() as other:
        other.uploads.open["0"] = bytearray()
        registry.uploads.location = lambda path: f"http://{other.host}{path}?token=presigned"
        uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))
        assert other.blobs[NEW_BLOB.digest] == NEW
        assert [headers.get("authorization") for _, headers in other.seen] == [None]
        assert "token=presigned&digest=" in other.paths()[0]


def test_an_upload_is_not_redirected(registry: FakeRegistry, make_client: Make) -> None:
    registry.uploads.rules["PUT"] = read_and_answer(307, {"Location": "http://127.0.0.2:9/"})
    with pytest.raises(RegistryError, match="redirects what only it may get"):
        uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))


def test_the_registry_got_something_else(registry: FakeRegistry, make_client: Make) -> None:
    lie = {"Docker-Content-Digest": digest_of(b"other")}
    registry.uploads.rules["PUT"] = read_and_answer(201, lie)
    with pytest.raises(DigestMismatch, match="another blob than was sent"):
        uploader(make_client).put_blob(NEW_BLOB, io.BytesIO(NEW))
    registry.rules["/v2/app/manifests/new"] = read_and_answer(201, lie)
    with pytest.raises(DigestMismatch, match="another manifest than was sent"):
        uploader(make_client).put_manifest("new", b"{}", OCI_MANIFEST)


def test_manifests(registry: FakeRegistry, make_client: Make) -> None:
    target = uploader(make_client)
    digest = target.put_manifest("new", b'{"a": 1}', OCI_MANIFEST)
    assert digest == digest_of(b'{"a": 1}')
    assert registry.manifests["app", "new"] == (b'{"a": 1}', OCI_MANIFEST)
    assert target.put_manifest(digest, b'{"a": 1}', OCI_MANIFEST) == digest
    with pytest.raises(DigestMismatch):
        target.put_manifest(digest, b'{"a": 2}', OCI_MANIFEST)
    with pytest.raises(RegistryError, match="larger than registries take"):
        target.put_manifest("new", b"x" * 5_000_000, OCI_MANIFEST)
    target.delete_manifest("new")
    assert ("app", "new") not in registry.manifests
    with pytest.raises(RegistryError, match="404"):
        target.delete_manifest("new")
    registry.rules["/v2/app/manifests/latest"] = lambda h: h.answer(405)
    with pytest.raises(RegistryError, match="lets nobody delete"):
        target.delete_manifest("latest")


def test_a_registry_may_work_on_what_it_got(registry: FakeRegistry, make_client: Make) -> None:
    """Longer than it may be silent otherwise."""

    def work(handler: Handler) -> None:
        handler.registry.stopped.wait(0.6)
        name = handler.path.partition("?")[0].rpartition("/")[2]
        registry.uploads.take(handler, name, {"digest": NEW_BLOB.digest})

    def wait(handler: Handler) -> None:
        handler.registry.stopped.wait(0.6)
        handler.answer(404)

    registry.uploads.rules["PUT"] = work
    client = make_client(limits=Limits(read=0.2, answer=0.3), patience=Patience(tries=1))
    Uploader(client.session).put_blob(NEW_BLOB, io.BytesIO(NEW))
    assert registry.blobs[NEW_BLOB.digest] == NEW
    registry.rules["/v2/app/tags/list"] = wait
    with pytest.raises(ConnectionFailed, match=r"no .*answer within the time"):
        client.list_tags()


def test_a_token_that_runs_out_meanwhile(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "first"
    target = uploader(make_client)
    target.put_blob(NEW_BLOB, io.BytesIO(NEW))
    registry.token = "second"
    target.put_blob(BLOB, io.BytesIO(DATA))
    assert registry.blobs[BLOB.digest] == DATA


def test_closing_ends_an_upload(registry: FakeRegistry, make_client: Make) -> None:
    client = make_client()
    caught: list[BaseException] = []

    def put() -> None:
        try:
            Uploader(client.session).put_blob(NEW_BLOB, io.BytesIO(NEW))
        except Cancelled as error:
            caught.append(error)

    registry.uploads.rules["PUT"] = wait_for_the_end
    thread = threading.Thread(target=put)
    thread.start()
    while "PUT" not in registry.methods:
        registry.stopped.wait(0.005)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(caught) == 1
