"""Ways in which a registry can fail or attack a pull of ``app:latest``: each is set up on a fake registry."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.fakeregistry import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, FakeRegistry, Handler, digest_of
from usercontainerd.registry.connections import Limits
from usercontainerd.registry.patience import Patience

# What takes minutes in earnest takes no time here.
LIMITS = Limits(connect=2.0, read=1.0, answer=0.5, least=1000, window=0.3)
MANIFEST = "/v2/app/manifests/latest"
OUTSIDE = "sha256:../../../../etc/passwd"
Document = dict[str, Any]
Case = Callable[[FakeRegistry, Document], None]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients lose their patience quickly."""
    patience = replace(Patience(), tries=3, first=0.001)
    monkeypatch.setattr("usercontainerd.registry.transport.Patience", lambda: patience)
    monkeypatch.setattr("usercontainerd.registry.transport.Limits", lambda: LIMITS)


def blob_path(manifest: Document, layer: int = 1) -> str:
    """Where the blob of a layer is asked for."""
    return f"/v2/app/blobs/{manifest['layers'][layer]['digest']}"


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    """A rule: always this. ``_`` in the names of headers stands for ``-``."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler: handler.answer(status, body, named)


def send_raw(start: bytes, piece: bytes = b"", *, slowly: bool = False) -> Callable[[Handler], None]:
    """A rule: these very bytes, then ``piece`` without end (if empty: silence), every 50 ms or as fast as it goes."""

    def send(handler: Handler) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(start)
            for _ in range(4000 if piece or slowly else 0):
                handler.wfile.write(piece)
                if slowly:
                    handler.wfile.flush()
                    handler.registry.stopped.wait(0.05)

    return send


def on_manifest(rule: Callable[[Handler], None]) -> Case:
    """A registry that answers so when it is asked for the manifest."""

    def setup(registry: FakeRegistry, _manifest: Document) -> None:
        registry.rules[MANIFEST] = rule

    return setup


def on_layer(rule: Callable[[Handler], None]) -> Case:
    """A registry that answers so when it is asked for the second layer."""

    def setup(registry: FakeRegistry, manifest: Document) -> None:
        registry.rules[blob_path(manifest)] = rule

    return setup


def change_layer(change: Callable[[bytes], bytes], **headers: str) -> Case:
    """A registry that gives other bytes for the second layer; ``Content_Length=""`` leaves its length open."""

    def setup(registry: FakeRegistry, manifest: Document) -> None:
        data = change(registry.blobs[manifest["layers"][1]["digest"]])
        registry.rules[blob_path(manifest)] = answer(200, data, **headers)

    return setup


def change_manifest(change: Callable[[Document], Any], media_type: str = OCI_MANIFEST) -> Case:
    """An image whose manifest is changed in place, or replaced by what ``change`` returns."""

    def setup(registry: FakeRegistry, manifest: Document) -> None:
        changed = json.loads(json.dumps(manifest))
        registry.add_manifest("app", "latest", change(changed) or changed, media_type)

    return setup


def change_configuration(change: Callable[[Document], object]) -> Case:
    """An image whose configuration is changed in place."""

    def setup(registry: FakeRegistry, manifest: Document) -> None:
        configuration = json.loads(registry.blobs[manifest["config"]["digest"]])
        change(configuration)
        data = json.dumps(configuration).encode()
        config = {**manifest["config"], "digest": registry.add_blob(data), "size": len(data)}
        registry.add_manifest("app", "latest", {**manifest, "config": config})

    return setup


def nest_indexes(registry: FakeRegistry, manifest: Document) -> None:
    """An index that leads to an index, which leads to the image."""
    inner = registry.manifests["app", "latest"]
    for tag in ("inner", "latest"):
        kind = OCI_MANIFEST if tag == "inner" else OCI_INDEX
        descriptor = {"mediaType": kind, "digest": digest_of(inner[0]), "size": len(inner[0])}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}
        registry.add_manifest("app", tag, index, OCI_INDEX)
        inner = registry.manifests["app", tag]


def lie_about_digest(registry: FakeRegistry, _manifest: Document) -> None:
    """The header names another digest than the bytes have."""
    data, media_type = registry.manifests["app", "latest"]
    headers = {"Content_Type": media_type, "Docker_Content_Digest": digest_of(b"other")}
    registry.rules[MANIFEST] = answer(200, data, **headers)


def want_foreign_token(registry: FakeRegistry, _manifest: Document) -> None:
    """The token is to come from another host without TLS."""
    registry.token, registry.realm = "secret", "http://127.0.0.2:9/token"


def refuse_for_ever(registry: FakeRegistry, _manifest: Document) -> None:
    """Every token is refused, and another one wanted."""
    registry.token = "secret"
    registry.rules["/token"] = answer(200, b'{"token": "another"}')


def break_off_and_lie(registry: FakeRegistry, manifest: Document) -> None:
    """The blob breaks off, and goes on with another part than was asked for."""
    data = registry.blobs[manifest["layers"][1]["digest"]]

    def serve(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.answer(206, data[10:], {"Content-Range": f"bytes 10-{len(data) - 1}/{len(data)}"})
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True

    registry.rules[blob_path(manifest)] = serve


def point_elsewhere(registry: FakeRegistry, manifest: Document) -> None:
    """A layer that is not here but at another address."""
    layer = manifest["layers"][1]
    del registry.blobs[layer["digest"]]
    foreign = OCI_LAYER.replace("layer.v1", "layer.nondistributable.v1")
    layers = [
        manifest["layers"][0],
        {**layer, "mediaType": foreign, "urls": [f"http://{registry.host}/away"]},
    ]
    registry.rules["/away"] = lambda handler: pytest.fail("it was asked")
    registry.add_manifest("app", "latest", {**manifest, "layers": layers})


def _set(document: Document, *path: Any) -> None:
    """Set a value: the last of ``path`` at the keys before it."""
    *keys, last, value = path
    for key in keys:
        document = document[key]
    document[last] = value


EMPTY = digest_of(b"")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" * 9
UNBOUNDED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"

# Each case: how it is set up, and what the user is told.
CASES: dict[str, tuple[Case, str]] = {
    "layer: other bytes": (change_layer(lambda data: b"x" * len(data)), "expected sha256:.*got sha256:"),
    "layer: too short": (change_layer(lambda data: data[:-1]), "announces"),
    "layer: too short, length open": (change_layer(lambda data: data[:-1], Content_Length=""), r"\d of \d"),
    "layer: too long": (change_layer(lambda data: data + b"x"), "announces"),
    "layer: too long, length open": (change_layer(lambda data: data + b"x", Content_Length=""), "more than the"),
    "layer: endless": (on_layer(send_raw(UNBOUNDED, b"x" * 65536)), "more than the|expected sha256"),
    "layer: slow": (on_layer(send_raw(UNBOUNDED, b"x", slowly=True)), "too slow"),
    "layer: missing": (on_layer(answer(404)), "lacks the blob"),
    "layer: goes on elsewhere": (break_off_and_lie, "from byte .* on, and gives"),
    "layer: at a foreign address": (point_elsewhere, "lacks the blob.*another address, which is not asked"),
    "layer: redirect to a file": (on_layer(answer(302, Location="file:///etc/passwd")), "not allowed"),
    "layer: redirect with a password": (on_layer(answer(307, Location="http://a:b@127.0.0.1/")), "user name"),
    "layer: redirect to itself": (on_layer(lambda h: h.answer(307, b"", {"Location": h.path})), "5 redirects"),
    "layer: redirect nowhere": (on_layer(answer(301)), "leads nowhere"),
    "manifest: huge": (on_manifest(answer(200, b" " * 5_000_000)), "longer than the 4194304 bytes"),
    "manifest: endless": (on_manifest(send_raw(UNBOUNDED, b"x" * 65536)), "longer than the 4194304 bytes"),
    "manifest: no JSON": (on_manifest(answer(200, b"<html>")), "not valid JSON"),
    "manifest: nested deeply": (on_manifest(answer(200, b"[" * 100_000)), "nested|not valid JSON"),
    "manifest: another digest": (lie_about_digest, "expected sha256:.*got sha256:"),
    "manifest: 600 layers": (change_manifest(lambda m: _set(m, "layers", m["layers"] * 300)), "500"),
    "manifest: path as digest": (change_manifest(lambda m: _set(m, "layers", 0, "digest", OUTSIDE)), "not a digest"),
    "manifest: negative size": (change_manifest(lambda m: _set(m, "layers", 0, "size", -1)), "between 0 and"),
    "manifest: another size": (change_manifest(lambda m: _set(m, "layers", 1, "size", 5)), "but the manifest says 5"),
    "manifest: index of indexes": (nest_indexes, "an index leads to another index"),
    "manifest: two kinds at once": (change_manifest(lambda m: _set(m, "manifests", [])), "does not belong"),
    "manifest: said to be an index": (change_manifest(lambda m: None, OCI_INDEX), "but the registry says"),
    "manifest: no image": (change_manifest(lambda m: _set(m, "config", "mediaType", "x/y")), "not a container image"),
    "configuration: huge": (change_manifest(lambda m: _set(m, "config", "size", 1 << 40)), "larger than the"),
    "configuration: more layers": (change_configuration(lambda c: c["rootfs"]["diff_ids"].append(EMPTY)), "tion 3"),
    "configuration: other layers": (
        change_configuration(lambda c: _set(c, "rootfs", "diff_ids", 1, digest_of(b"other"))),
        "unpacked layer",
    ),
    "answer: 401 for ever": (refuse_for_ever, "refuses access"),
    "answer: token of another host": (want_foreign_token, "wants a token from"),
    "answer: 403": (on_manifest(answer(403)), "refuses access"),
    "answer: 429": (on_manifest(answer(429, Retry_After="21600")), "wait 21600 s"),
    "answer: 500": (on_manifest(answer(500)), "status 500"),
    "answer: 503": (on_layer(answer(503)), "status 503"),
    "answer: headers come slowly": (on_manifest(send_raw(b"HTTP/1.1 200 OK\r\n", b"X", slowly=True)), "no complete"),
    "answer: long header": (on_manifest(send_raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99_999)), "not proper HTTP"),
    "answer: many headers": (on_manifest(send_raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")), "not proper HTTP"),
    "answer: interim for ever": (on_manifest(send_raw(b"", INTERIM)), "headers are longer|100 interim responses"),
    "answer: not HTTP": (on_manifest(send_raw(b"SSH-2.0-OpenSSH\r\n")), "not proper HTTP"),
    "answer: nothing": (on_manifest(send_raw(b"")), "without response|reset|broken"),
}  # fmt: skip


def list_cases() -> Iterator[Any]:
    """For ``pytest.mark.parametrize``."""
    for name, (setup, message) in CASES.items():
        yield pytest.param(setup, message, id=name)
