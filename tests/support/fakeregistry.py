"""A registry for tests: HTTP on loopback, and able to misbehave in every way that a test can think of."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.fakeuploads import Uploads

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIGURATION = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def build_tar(
    *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar archive of the members; a tuple gives a file its content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            if content:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    """A member of an archive with the given fields of ``TarInfo``."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def file(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file."""
    return member(name, **fields), content


class QuietServer(ThreadingHTTPServer):
    """Clients that break off are what the tests are about."""

    def handle_error(self, *_: object) -> None:
        pass


class FakeRegistry:
    """``blobs`` and ``manifests`` may be changed at any time; ``rules`` answer instead of them, by path.

    ``seen`` holds (path, headers) of every request. With ``token``, everything below /v2/ wants that Bearer
    token. With ``tls`` it speaks that. ``stopped`` is set at the end: rules that wait do it there. ``methods`` are
    the methods of the requests in ``seen``; ``uploads`` takes what is pushed.
    """

    def __init__(self, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.rules: dict[str, Callable[[Handler], None]] = {}
        self.seen: list[tuple[str, Mapping[str, str]]] = []
        self.token: str | None = None
        self.realm: str | None = None
        self.methods: list[str] = []
        self.uploads = Uploads(self.blobs, self.manifests)
        self.stopped = threading.Event()
        self.address = address
        self._server = QuietServer((address, 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.daemon_threads = True
        self._server.registry = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        return f"{self.address}:{self._server.server_address[1]}"

    def add_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    def add_manifest(self, repository: str, tag: str, document: Any, media_type: str = OCI_MANIFEST) -> str:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(data)
        self.manifests[repository, tag] = self.manifests[repository, digest] = (data, media_type)
        return digest

    def add_image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[bytes],
        config: Mapping[str, Any] | None = None,
        *,
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 1, mtime=0),
        media_type: str = OCI_LAYER,
    ) -> dict[str, Any]:
        """Add an image of uncompressed ``layers``; return its manifest."""
        descriptors = []
        for layer in layers:
            blob = compress(layer)
            descriptors.append({"mediaType": media_type, "digest": self.add_blob(blob), "size": len(blob)})
        configuration = {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            **(config or {}),
        }
        data = json.dumps(configuration).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIGURATION, "digest": self.add_blob(data), "size": len(data)},
            "layers": descriptors,
        }
        self.add_manifest(repository, tag, manifest)
        return manifest

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    @property
    def registry(self) -> FakeRegistry:
        registry = self.server.registry  # type: ignore[attr-defined]
        assert isinstance(registry, FakeRegistry)
        return registry

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        all_headers = {"Content-Length": str(len(body)), **(headers or {})}
        for key, value in all_headers.items():
            if value:
                self.send_header(key, value)
        if not all_headers["Content-Length"]:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self) -> bytes:
        """What came with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.registry.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.registry.methods.append(self.command)
        if (rule := self.registry.rules.get(path)) is not None:
            rule(self)
            return
        wanted = self.registry.token
        if path.startswith("/v2/") and wanted and self.headers.get("Authorization") != f"Bearer {wanted}":
            realm = self.registry.realm or f"http://{self.registry.host}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:x:pull"'
            self.answer(401, b"{}", {"WWW-Authenticate": challenge})
        elif path == "/token" and wanted:
            self.answer(200, json.dumps({"token": wanted}).encode())
        elif path == "/v2/":
            self.answer(200, b"{}")
        elif self.command in ("GET", "HEAD") and "/blobs/uploads/" not in path:
            self.answer_content(path)
        else:
            self.registry.uploads.answer(self)

    def answer_content(self, path: str) -> None:
        repository, _, rest = path.removeprefix("/v2/").rpartition("/")
        repository, _, kind = repository.rpartition("/")
        if kind == "manifests" and (repository, rest) in self.registry.manifests:
            data, media_type = self.registry.manifests[repository, rest]
            self.answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)})
        elif kind == "blobs" and rest in self.registry.blobs:
            self.answer_blob(self.registry.blobs[rest])
        else:
            self.answer(404, json.dumps({"errors": [{"code": "X", "message": "it is unknown"}]}).encode())

    def answer_blob(self, data: bytes) -> None:
        start = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if start:
            part = data[int(start) :]
            self.answer(206, part, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self.answer(200, data)


for _method in ("HEAD", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Handler, f"do_{_method}", Handler.do_GET)
