"""Images in files, made up by tests: OCI layouts and docker's archives as members of a tar file."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.fakeregistry import (
    OCI_CONFIGURATION,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    build_tar,
    digest_of,
    file,
    member,
)

REF_NAME = "org.opencontainers.image.ref.name"
DIR = tarfile.DIRTYPE
Files = dict[str, bytes]


def build_configuration(layers: Sequence[bytes], **more: Any) -> bytes:
    """A configuration of uncompressed layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        **more,
    }
    return json.dumps(document).encode()


class Layout:
    """An OCI layout in the making: ``files`` by their names, index.json at the end from ``entries``."""

    def __init__(self) -> None:
        self.files: Files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.entries: list[dict[str, Any]] = []

    def add_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        self.files[f"blobs/sha256/{digest.removeprefix('sha256:')}"] = data
        return digest

    def add_document(self, document: Any, media_type: str, *, name: str = "", **entry: Any) -> dict[str, Any]:
        """Add a manifest or index; with a name (or other fields of an entry) index.json has it."""
        data = json.dumps(document).encode()
        descriptor = {"mediaType": media_type, "digest": self.add_blob(data), "size": len(data), **entry}
        if name:
            descriptor["annotations"] = {REF_NAME: name}
        return descriptor

    def build_image(
        self,
        layers: Sequence[bytes],
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 1, mtime=0),
        media_type: str = OCI_LAYER,
        **configuration: Any,
    ) -> dict[str, Any]:
        """Add an image's blobs; return its manifest."""
        blobs = [compress(layer) for layer in layers]
        config = build_configuration(layers, **configuration)
        return {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIGURATION,
                "digest": self.add_blob(config),
                "size": len(config),
            },
            "layers": [
                {"mediaType": media_type, "digest": self.add_blob(blob), "size": len(blob)} for blob in blobs
            ],
        }

    def add_image(self, layers: Sequence[bytes], name: str = "", **options: Any) -> dict[str, Any]:
        """Add an image with its entry in index.json; return the entry."""
        entry = self.add_document(self.build_image(layers, **options), OCI_MANIFEST, name=name)
        self.entries.append(entry)
        return entry

    def build(self) -> Files:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.entries}
        return {**self.files, "index.json": json.dumps(index).encode()}


def build_docker_archive(layers: Sequence[bytes], names: Sequence[str] = (), **configuration: Any) -> Files:
    """A classic docker archive of one image."""
    config = build_configuration(layers, **configuration)
    paths = [f"{digest_of(layer)[7:]}/layer.tar" for layer in layers]
    config_name = f"{digest_of(config)[7:]}.json"
    manifest = [{"Config": config_name, "RepoTags": list(names), "Layers": paths}]
    return {
        config_name: config,
        **dict(zip(paths, layers, strict=True)),
        "manifest.json": json.dumps(manifest).encode(),
    }


def pack(files: Files, *more: Any) -> bytes:
    """The files as a tar archive, and further members behind them."""
    return build_tar(*(file(name, data) for name, data in files.items()), *more)


def spread(files: Files, directory: Path) -> Path:
    """The files as a directory."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


SMALL_LAYER = build_tar(member("bin", DIR), file("bin/sh", b"#!", mode=0o755))
