"""The push half of the registry for tests: uploads whole and in chunks, mounts, manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.support.fakeregistry import Handler


class Uploads:
    """Takes what is pushed into ``blobs`` and ``manifests``.

    ``rules`` answer instead, by method: PUT and PATCH of uploads; ``manifest_rule`` does for manifests. ``owners`` are
    the repositories that a blob can be mounted from, ``location`` makes the ``Location`` of an upload, ``cancelled``
    counts the ones given up.
    """

    def __init__(self, blobs: dict[str, bytes], manifests: dict[tuple[str, str], tuple[bytes, str]]) -> None:
        self.blobs = blobs
        self.manifests = manifests
        self.open: dict[str, bytearray] = {}
        self.owners: dict[str, set[str]] = {}
        self.rules: dict[str, Callable[[Handler], None]] = {}
        self.manifest_rule: Callable[[Handler], None] | None = None
        self.location: Callable[[str], str] = lambda path: path
        self.cancelled = 0

    def answer(self, handler: Handler) -> None:
        """Answer a request that is not for reading content."""
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/blobs/uploads/")
        if "/manifests/" in parts.path:
            self._take_manifest(handler, parts.path)
        elif handler.command == "POST" and not rest:
            self._begin(handler, repository, query)
        elif rest not in self.open:
            handler.read_body()
            handler.answer(404, b'{"errors": [{"message": "no such upload"}]}')
        elif (rule := self.rules.get(handler.command)) is not None:
            rule(handler)
        else:
            self.take(handler, rest, query)

    def _begin(self, handler: Handler, repository: str, query: dict[str, str]) -> None:
        handler.read_body()
        digest = query.get("mount", "")
        if query.get("from") in self.owners.get(digest, ()):
            location = f"/v2/{repository}/blobs/{digest}"
            handler.answer(201, b"", {"Location": location, "Docker-Content-Digest": digest})
            return
        name = str(len(self.open))
        self.open[name] = bytearray()
        self._tell(handler, 202, f"/v2/{repository}/blobs/uploads/{name}", name)

    def _tell(self, handler: Handler, status: int, path: str, name: str) -> None:
        size = len(self.open[name])
        handler.answer(status, b"", {"Location": self.location(path), "Range": f"0-{max(size - 1, 0)}"})

    def take(self, handler: Handler, name: str, query: dict[str, str]) -> None:
        """Do what a registry that means well does with an upload."""
        path = urlsplit(handler.path).path
        if handler.command == "GET":
            self._tell(handler, 204, path, name)
        elif handler.command == "DELETE":
            del self.open[name]
            self.cancelled += 1
            handler.answer(204)
        elif handler.command == "PATCH":
            start = int(handler.headers["Content-Range"].partition("-")[0])
            data = handler.read_body()
            if start != len(self.open[name]):
                handler.answer(416)
                return
            self.open[name] += data
            self._tell(handler, 202, path, name)
        else:
            self.open[name] += handler.read_body()
            self._finish(handler, name, query["digest"])

    def _finish(self, handler: Handler, name: str, digest: str) -> None:
        data = bytes(self.open[name])
        algorithm, _, wanted = digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != wanted:
            handler.answer(400, json.dumps({"errors": [{"message": "digest invalid"}]}).encode())
            return
        del self.open[name]
        self.blobs[digest] = data
        handler.answer(201, b"", {"Docker-Content-Digest": digest})

    def _take_manifest(self, handler: Handler, path: str) -> None:
        if self.manifest_rule is not None:
            self.manifest_rule(handler)
            return
        repository, _, wanted = path.removeprefix("/v2/").partition("/manifests/")
        data = handler.read_body()
        if handler.command == "DELETE":
            found = self.manifests.pop((repository, wanted), None)
            handler.answer(404 if found is None else 202)
            return
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        media_type = handler.headers["Content-Type"]
        self.manifests[repository, wanted] = self.manifests[repository, digest] = (data, media_type)
        handler.answer(201, b"", {"Docker-Content-Digest": digest, "Location": f"{path}/{digest}"})
