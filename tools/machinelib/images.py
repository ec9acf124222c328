"""Builds container images from nothing: tar layers, configurations, manifests, and a registry's storage.

Only the standard library, and every byte determined by the input, so that tests can build what they need and
know its digests beforehand.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "s390x": "s390x"}

# 2026-01-01: a time that is neither zero nor now.
EPOCH = 1767225600


def find_architecture() -> str:
    """This machine's architecture in the words of OCI."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


class Format(StrEnum):
    """Whose words a manifest uses."""

    OCI = "oci"
    DOCKER = "docker"


_MEDIA_TYPES = {
    Format.OCI: {
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "index": "application/vnd.oci.image.index.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "tar": "application/vnd.oci.image.layer.v1.tar",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    },
    Format.DOCKER: {
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "tar": "application/vnd.docker.image.rootfs.diff.tar",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    },
}


@dataclass(frozen=True)
class Node:
    """One entry of a layer. `kind` is one of tarfile's types; a Path as content is read when it is needed."""

    path: str
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    content: bytes | Path = b""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    mtime: int = EPOCH
    headers: Mapping[str, str] = field(default_factory=dict)  # PAX, such as SCHILY.xattr.user.x


def make_directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Node:
    """A directory."""
    return Node(path, tarfile.DIRTYPE, mode, uid, gid)


def make_file(path: str, content: str | bytes | Path, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Node:
    """A file."""
    data = content.encode() if isinstance(content, str) else content
    return Node(path, tarfile.REGTYPE, mode, uid, gid, data)


def make_symlink(path: str, target: str) -> Node:
    """A symbolic link."""
    return Node(path, tarfile.SYMTYPE, 0o777, target=target)


def make_hard_link(path: str, target: str) -> Node:
    """A further name of an earlier entry of the same layer."""
    return Node(path, tarfile.LNKTYPE, 0o755, target=target)


def make_whiteout(path: str) -> Node:
    """Says that lower layers' `path` is gone."""
    directory, _, name = path.rpartition("/")
    return Node(f"{directory}/.wh.{name}" if directory else f".wh.{name}")


def read_nodes(root: Path, top: str, skip: frozenset[str] = frozenset()) -> Iterable[Node]:
    """The entries of a directory of the disk, with owners and modes, except those whose path is in `skip`."""
    first: dict[tuple[int, int], str] = {}
    for directory, directories, files in os.walk(root / top):
        directories.sort()
        base = Path(directory).relative_to(root)
        names = [str(base), *(str(base / name) for name in sorted(files))]
        names += [str(base / name) for name in directories if (root / base / name).is_symlink()]
        for name in names:
            path = root / name
            found = path.lstat()
            if name in skip or not (path.is_symlink() or path.is_dir() or path.is_file()):
                continue
            node = Node(name, mode=found.st_mode & 0o7777, uid=found.st_uid, gid=found.st_gid, content=path)
            node = replace(node, mtime=int(found.st_mtime))
            if path.is_symlink():
                yield replace(node, kind=tarfile.SYMTYPE, target=str(path.readlink()))
            elif path.is_dir():
                yield replace(node, kind=tarfile.DIRTYPE)
            elif found.st_nlink > 1 and (key := (found.st_dev, found.st_ino)) in first:
                yield replace(node, kind=tarfile.LNKTYPE, target=first[key])
            else:
                first[(found.st_dev, found.st_ino)] = name
                yield node


@dataclass(frozen=True)
class Layer:
    """A layer's blob in a file."""

    path: Path
    digest: str
    size: int
    diff_id: str
    compression: str  # "tar" (none) or "gzip"


class _HashingWriter(io.RawIOBase):
    """Passes on what is written, and knows its digest."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._sink.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def build_layer(nodes: Iterable[Node], directory: Path, compression: str = "gzip", level: int = 6) -> Layer:
    """Write a layer into a file of `directory`, named by its digest."""
    stage = directory / "layer.new"
    with stage.open("wb") as file:
        blob = _HashingWriter(file)
        if compression == "gzip":
            with gzip.GzipFile("", "wb", level, fileobj=blob, mtime=0) as packed:
                diff_id = _write_tar(nodes, packed)
        else:
            diff_id = _write_tar(nodes, blob)
    final = directory / blob.digest.partition(":")[2]
    stage.rename(final)
    return Layer(final, blob.digest, blob.size, diff_id, compression)


def _write_tar(nodes: Iterable[Node], sink: Any) -> str:
    plain = _HashingWriter(sink)
    with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 18) as archive:
        for node in nodes:
            _add_node(archive, node)
    return plain.digest


def _add_node(archive: tarfile.TarFile, node: Node) -> None:
    info = tarfile.TarInfo(node.path)
    info.type, info.mode, info.uid, info.gid = node.kind, node.mode, node.uid, node.gid
    info.mtime, info.linkname, info.pax_headers = node.mtime, node.target, dict(node.headers)
    info.devmajor, info.devminor = node.device
    if node.kind != tarfile.REGTYPE:
        archive.addfile(info)
    elif isinstance(node.content, Path):
        info.size = node.content.stat().st_size
        with node.content.open("rb") as file:
            archive.addfile(info, file)
    else:
        info.size = len(node.content)
        archive.addfile(info, io.BytesIO(node.content))


@dataclass(frozen=True)
class Image:
    """Layers, and the configuration to run them with."""

    config: bytes
    layers: tuple[Layer, ...]
    architecture: str


def build_image(
    layers: Sequence[Layer], settings: Mapping[str, object], architecture: str | None = None
) -> Image:
    """An image; `settings` is the `config` member of its configuration (Cmd, Env, User, ...)."""
    architecture = architecture or find_architecture()
    created = "2026-01-01T00:00:00Z"
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": f"layer {n}"} for n in range(len(layers))],
    }
    return Image(_render_json(config), tuple(layers), architecture)


@dataclass(frozen=True)
class Descriptor:
    """What points to a blob or a manifest."""

    media_type: str
    digest: str
    size: int

    def render(self) -> dict[str, object]:
        """The descriptor as JSON has it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def _render_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def compute_digest(data: bytes) -> str:
    """The digest of some bytes, as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def render_manifest(image: Image, form: Format = Format.OCI) -> bytes:
    """An image's manifest."""
    types = _MEDIA_TYPES[form]
    config = Descriptor(types["config"], compute_digest(image.config), len(image.config))
    layers = [Descriptor(types[layer.compression], layer.digest, layer.size) for layer in image.layers]
    return _render_json(
        {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": config.render(),
            "layers": [layer.render() for layer in layers],
        }
    )


def render_index(entries: Sequence[tuple[Descriptor, str]], form: Format = Format.OCI) -> bytes:
    """A list of manifests, each with the architecture that it is for."""
    manifests = [
        {**descriptor.render(), "platform": {"architecture": architecture, "os": "linux"}}
        for descriptor, architecture in entries
    ]
    media_type = _MEDIA_TYPES[form]["index"]
    return _render_json({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})


class RegistryStorage:
    """Writes images straight into the file-system storage of Debian's docker-registry (distribution 2.8)."""

    def __init__(self, root: Path) -> None:
        self._root = root / "docker/registry/v2"

    def add_image(self, name: str, tag: str, image: Image, form: Format = Format.OCI) -> Descriptor:
        """Store an image as NAME:TAG; the descriptor of its manifest."""
        for layer in image.layers:
            self._add_file(layer)
            self._link(f"{name}/_layers", layer.digest)
        self._link(f"{name}/_layers", self._add_bytes(image.config))
        return self._add_manifest(name, tag, render_manifest(image, form), _MEDIA_TYPES[form]["manifest"])

    def add_index(
        self, name: str, tag: str, entries: Sequence[tuple[Descriptor, str]], form: Format = Format.OCI
    ) -> Descriptor:
        """Store a list of manifests, which must be in the same repository."""
        return self._add_manifest(name, tag, render_index(entries, form), _MEDIA_TYPES[form]["index"])

    def blob_path(self, digest: str) -> Path:
        """Where a blob's bytes lie (to tamper with them, say)."""
        hexadecimal = digest.partition(":")[2]
        return self._root / "blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def _add_manifest(self, name: str, tag: str, manifest: bytes, media_type: str) -> Descriptor:
        digest = self._add_bytes(manifest)
        tags = f"{name}/_manifests/tags/{tag}"
        self._link(f"{name}/_manifests/revisions", digest)
        self._link(f"{tags}/index", digest)
        self._write(self._root / "repositories" / tags / "current/link", digest.encode())
        return Descriptor(media_type, digest, len(manifest))

    def _add_bytes(self, data: bytes) -> str:
        digest = compute_digest(data)
        self._write(self.blob_path(digest), data)
        return digest

    def _add_file(self, layer: Layer) -> None:
        path = self.blob_path(layer.digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(layer.path, path)

    def _link(self, directory: str, digest: str) -> None:
        algorithm, _, hexadecimal = digest.partition(":")
        self._write(
            self._root / "repositories" / directory / algorithm / hexadecimal / "link", digest.encode()
        )

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
