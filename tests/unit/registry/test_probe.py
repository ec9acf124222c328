"""The light question for a tag's digest: a plain answer counts, anything else is for the full client."""

from __future__ import annotations

import time

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler
from usercontainerd.oci.manifest import ACCEPTED
from usercontainerd.registry import probe
from usercontainerd.registry.probe import is_plain, parse_answer, probe_digest

DIGEST = "sha256:" + "ab" * 32


def test_answer() -> None:
    assert parse_answer(b"HTTP/1.1 200 OK\r\nDocker-Content-Digest: " + DIGEST.encode()) == DIGEST
    assert parse_answer(b"HTTP/1.0 200\r\ndocker-content-digest:" + DIGEST.encode()) == DIGEST


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK",
        b"\xff\xfe\0",
        f"HTTP/1.1 401 Unauthorized\r\nDocker-Content-Digest: {DIGEST}".encode(),
        f"HTTP/1.1 307 Elsewhere\r\nDocker-Content-Digest: {DIGEST}\r\nLocation: http://evil/".encode(),
        f"HTTP/2 200\r\nDocker-Content-Digest: {DIGEST}".encode(),
        f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {DIGEST}\r\nDocker-Content-Digest: {DIGEST}".encode(),
        b"HTTP/1.1 200 OK\r\nDocker-Content-Digest: sha256:../../etc/passwd",
    ],
)
def test_strange_answers(head: bytes) -> None:
    assert parse_answer(head) is None


def test_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRegistry() as registry:
        digest = registry.add_manifest("app", "latest", {"schemaVersion": 2})
        assert probe_digest(registry.host, "app", "latest", ACCEPTED) == digest
        assert registry.methods == ["HEAD"]
        assert registry.seen[0][1]["accept"] == ", ".join(ACCEPTED)
        assert probe_digest(registry.host, "app", "other", ACCEPTED) is None
        monkeypatch.setattr(probe, "_PATIENCE", 0.3)

        def drip(handler: Handler) -> None:
            for _ in range(100):
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
                time.sleep(0.05)

        def flood(handler: Handler) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000)

        for rule in (drip, flood):
            registry.rules["/v2/app/manifests/latest"] = rule
            assert probe_digest(registry.host, "app", "latest", ACCEPTED) is None
    assert probe_digest(registry.host, "app", "latest", ACCEPTED) is None


def test_not_behind_a_proxy() -> None:
    proxy = {"http_proxy": "http://proxy:3128"}
    assert is_plain("registry.lan", {})
    assert not is_plain("registry.lan:5000", proxy)
    assert is_plain("localhost:5000", proxy)
    assert not is_plain("localhost.evil.example:5000", proxy)
