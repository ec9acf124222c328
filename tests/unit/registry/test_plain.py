"""Small things by plain means: a simple answer counts, anything else is for the full client."""

from __future__ import annotations

import time

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler
from usercontainerd.registry import plain
from usercontainerd.registry.plain import fetch_plain, is_direct, parse_head

PATH = "/v2/app/manifests/latest"


def test_head() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA:b") == {"content-length": "5", "a": "b"}
    assert parse_head(b"HTTP/1.0 200") == {}
    # What came twice is not there.
    assert parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 6") == {}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xfe\0",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5",
        b"HTTP/1.1 307 Elsewhere\r\nLocation: http://evil/",
        b"HTTP/1.1 206 Partial\r\nContent-Length: 5",
        b"HTTP/1.1 100 Continue",
        b"HTTP/2 200\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5",
        b"HTTP/1.1 200 OK\r\n continued: 5",
        b"HTTP/1.1 200 OK\r\nno colon",
    ],
)
def test_strange_heads(head: bytes) -> None:
    assert parse_head(head) is None


def drip(handler: Handler) -> None:
    for _ in range(100):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        time.sleep(0.05)


def flood(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000)


def stall(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    time.sleep(1)


@pytest.mark.parametrize(
    "rule",
    [
        drip,
        flood,
        stall,
        lambda handler: handler.answer(200, b"x" * 101),
        lambda handler: handler.answer(200, b"x", {"Content-Length": ""}),
        lambda handler: handler.answer(200, b"xyz", {"Content-Length": "2"}),
        lambda handler: handler.answer(200, b"xyz", {"Content-Length": "-2"}),
        lambda handler: handler.answer(200, b"xyz", {"Content-Length": "2, 2"}),
    ],
)
def test_strange_answers(monkeypatch: pytest.MonkeyPatch, rule: object) -> None:
    monkeypatch.setattr(plain, "PATIENCE", 0.3)
    with FakeRegistry() as registry:
        registry.rules[PATH] = rule  # type: ignore[assignment]
        assert fetch_plain(registry.host, PATH, limit=100) is None


def test_a_registry() -> None:
    with FakeRegistry() as registry:
        digest = registry.add_manifest("app", "latest", b"{}")
        answer = fetch_plain(registry.host, PATH, limit=100, accept="a/b, c/d")
        assert answer is not None
        assert answer.body == b"{}"
        assert answer.headers["docker-content-digest"] == digest
        headers = registry.seen[0][1]
        assert headers["accept"] == "a/b, c/d"
        assert "authorization" not in headers
        assert fetch_plain(registry.host, "/v2/app/manifests/other", limit=100) is None
    assert fetch_plain(registry.host, PATH, limit=100) is None


def test_not_behind_a_proxy() -> None:
    proxy = {"http_proxy": "http://proxy:3128"}
    assert is_direct("registry.lan", {})
    assert not is_direct("registry.lan:5000", proxy)
    assert is_direct("localhost:5000", proxy)
    assert not is_direct("localhost.evil.example:5000", proxy)
