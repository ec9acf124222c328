"""A registry that keeps us waiting, sends without end or breaks off: each ends soon, with a clear word."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler
from tests.support.hostile import answer, send_raw
from tests.support.registryclients import BLOB, DATA, LIMITS, MANIFEST, PATH, Make, close_under
from usercontainerd.base.errors import Cancelled, DigestMismatch, RegistryError
from usercontainerd.registry.patience import Patience
from usercontainerd.registry.transport import ConnectionFailed

ONCE = Patience(tries=1)


@pytest.mark.parametrize(
    ("start", "piece", "message"),
    [
        # Bytes trickle in: no single receive takes long.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n", b"x", "too slow"),
        (b"HTTP/1.1 200 OK\r\n", b"X", "no complete answer within the time"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no complete answer within the time"),
    ],
    ids=["body", "headers", "interim answers"],
)
def test_slow_loris(
    registry: FakeRegistry, make_client: Make, start: bytes, piece: bytes, message: str
) -> None:
    registry.rules[PATH] = send_raw(start, piece, slowly=True)
    with pytest.raises(ConnectionFailed, match=message):
        make_client(limits=LIMITS, patience=ONCE).fetch_blob(BLOB, limit=1 << 20)


def test_a_slow_reader_of_ours_is_not_their_fault(registry: FakeRegistry, make_client: Make) -> None:
    pause = threading.Event()
    pieces: list[bytes] = []

    def write(data: bytes) -> None:
        pieces.append(data)
        pause.wait(0.4)  # longer than the window

    make_client(limits=LIMITS, patience=ONCE).copy_blob(BLOB, write)
    assert b"".join(pieces) == DATA


def answer_raw(data: bytes) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    return answer


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "not proper HTTP: got more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "not proper HTTP: got more than 100 headers"),
        # The second: newer versions of Python's http.client have a limit of their own.
        (
            b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
            "headers are longer than the 262144 bytes|got more than 100 interim responses",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not proper HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "not proper HTTP"),
    ],
    ids=["long header", "many headers", "endless interim answers", "another protocol", "no status"],
)
def test_headers_that_are_none(registry: FakeRegistry, make_client: Make, data: bytes, message: str) -> None:
    registry.rules[MANIFEST] = answer_raw(data)
    with pytest.raises(RegistryError, match=message):
        make_client().fetch_manifest("latest")
    assert registry.paths().count(MANIFEST) == 1  # what is nonsense once is not asked for again


@pytest.mark.parametrize(
    "body", [b"-5\r\n", b"zz\r\nx", b"fffffffffffffffffffff\r\nx"], ids=["negative", "no number", "too large"]
)
def test_bad_chunks(registry: FakeRegistry, make_client: Make, body: bytes) -> None:
    registry.rules[PATH] = answer_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    with pytest.raises((RegistryError, DigestMismatch)):
        make_client().fetch_blob(BLOB, limit=1 << 20)
    assert len(registry.seen) < 10


def break_off_after(count: int) -> Callable[[Handler], None]:
    """Promise the rest of the blob, send ``count`` bytes of it and close."""

    def answer(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        handler.send_header("Content-Length", str(len(DATA) - start))
        handler.end_headers()
        handler.wfile.write(DATA[start : start + count])
        handler.close_connection = True

    return answer


def test_many_broken_connections_bring_it_in_the_end(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[PATH] = break_off_after(100_000)
    assert make_client().fetch_blob(BLOB, limit=1 << 20) == DATA
    ranges = [headers.get("range") for path, headers in registry.seen if path == PATH]
    assert ranges == [None, *(f"bytes={each * 100_000}-" for each in range(1, 7))]


def test_connections_that_bring_nothing_are_given_up(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[PATH] = break_off_after(0)
    with pytest.raises(ConnectionFailed, match=r"bytes are missing|broken|more expected"):
        make_client(patience=Patience(tries=3, first=0.001)).fetch_blob(BLOB, limit=1 << 20)
    assert registry.paths().count(PATH) <= 4


def test_going_on_with_what_is_here(registry: FakeRegistry, make_client: Make) -> None:
    rest: list[bytes] = []
    counts: list[int] = []
    make_client().copy_blob(
        BLOB, rest.append, counts.append, start=300_000, state=hashlib.sha256(DATA[:300_000])
    )
    assert b"".join(rest) == DATA[300_000:]
    assert counts[0] > 300_000
    assert counts[-1] == len(DATA)
    assert registry.seen[-1][1]["range"] == "bytes=300000-"


def test_all_of_it_is_here_already(registry: FakeRegistry, make_client: Make) -> None:
    client = make_client()
    pieces: list[bytes] = []
    client.copy_blob(BLOB, pieces.append, start=len(DATA), state=hashlib.sha256(DATA))
    with pytest.raises(DigestMismatch):
        client.copy_blob(BLOB, pieces.append, start=len(DATA), state=hashlib.sha256(b"other"))
    assert pieces == []
    assert registry.seen == []


def test_what_is_here_is_wrong(make_client: Make) -> None:
    with pytest.raises(DigestMismatch):
        make_client().copy_blob(BLOB, len, start=300_000, state=hashlib.sha256(bytes(300_000)))


def test_a_registry_without_ranges(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[PATH] = lambda handler: handler.answer(200, DATA)
    rest: list[bytes] = []
    make_client().copy_blob(BLOB, rest.append, start=300_000, state=hashlib.sha256(DATA[:300_000]))
    assert b"".join(rest) == DATA[300_000:]


@pytest.mark.parametrize(
    "given",
    [
        "bytes 0-699999/700000",
        "bytes 300000-699999/700001",
        "bytes 300001-699999/700000",
        "bytes x",
        "",
        "items 1-2/3",
    ],
)
def test_bad_content_range(registry: FakeRegistry, make_client: Make, given: str) -> None:
    registry.rules[PATH] = lambda handler: handler.answer(206, DATA[300_000:], {"Content-Range": given})
    with pytest.raises(RegistryError, match="from byte 300000 of 700000 on, and gives"):
        make_client().copy_blob(BLOB, len, start=300_000, state=hashlib.sha256(DATA[:300_000]))


def test_closing_ends_transfers_of_other_threads(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[PATH] = send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n", b"x", slowly=True)
    registry.rules[MANIFEST] = send_raw(b"", slowly=True)
    client = make_client()
    fetches = {PATH: lambda: client.copy_blob(BLOB, len), MANIFEST: lambda: client.fetch_manifest("latest")}
    assert close_under(client, registry, fetches) == [Cancelled, Cancelled]
    with pytest.raises(Cancelled):
        client.fetch_manifest("latest")


def test_closing_ends_a_wait(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[MANIFEST] = answer(503, Retry_After="50")
    client = make_client(patience=Patience())
    assert close_under(client, registry, {MANIFEST: lambda: client.fetch_manifest("latest")}) == [Cancelled]
