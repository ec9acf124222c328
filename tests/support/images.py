"""Images that tests make up as they go, served by a registry of their own on loopback."""

from __future__ import annotations

import os
import platform
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeregistry import FakeRegistry, build_tar, digest_of, file, member

BUSYBOX_PROGRAM = "/usr/bin/busybox"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "s390x": "s390x"}
APPLETS = "sh cat ls id sleep echo env head tail mkdir rm mount ps kill true false touch stat readlink grep"

Member = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


@cache
def build_base_layer() -> bytes:
    """A root file system of busybox with the usual directories."""
    program = Path(BUSYBOX_PROGRAM).read_bytes()
    directories = (
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "var",
        "var/tmp",
    )
    members: list[Member] = [member(name, tarfile.DIRTYPE) for name in directories]
    members.append(file("bin/busybox", program, mode=0o755))
    members += [symlink(f"bin/{name}", "busybox") for name in APPLETS.split()]
    members.append(file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nwww:x:1000:1000::/:/bin/sh\n"))
    members.append(file("etc/group", b"root:x:0:\nwww:x:1000:\nmore:x:2000:www\n"))
    return build_tar(*members)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target, mode=0o777)


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


def directory(name: str, **fields: Any) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, **fields)


class ImageMaker:
    """Puts images into a registry of its own; ``host`` is its address."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry

    @property
    def host(self) -> str:
        return self.registry.host

    def add(
        self,
        name: str,
        *members: Member,
        settings: Mapping[str, Any] | None = None,
        base: bool = True,
        tag: str = "latest",
        layers: tuple[bytes, ...] = (),
        history: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Add an image of busybox, ``members`` in a layer above it and ``layers``; return its full name."""
        stack = [
            *([build_base_layer()] if base else []),
            *([build_tar(*members)] if members else []),
            *layers,
        ]
        configuration = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "config": {"Cmd": ["sh"], "Env": [PATH], **(settings or {})},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in stack]},
            "history": list(history),
        }
        self.registry.add_image(name, tag, stack, configuration)
        return f"{self.host}/{name}:{tag}"


@contextmanager
def serve_images() -> Iterator[ImageMaker]:
    """A registry of its own, which the user's registries.conf.d says is without TLS."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    with FakeRegistry() as registry:
        drop_in = config / f"containers/registries.conf.d/test-{os.getpid()}-{id(registry):x}.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n', encoding="utf-8")
        try:
            yield ImageMaker(registry)
        finally:
            drop_in.unlink()


@pytest.fixture
def images() -> Iterator[ImageMaker]:
    """A registry of the test's own."""
    with serve_images() as maker:
        yield maker
