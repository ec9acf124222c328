"""The images that the machine's registry is seeded with, made of Debian's own files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from machinelib.images import (
    Format,
    Image,
    Layer,
    Node,
    RegistryStorage,
    build_image,
    build_layer,
    find_architecture,
    make_directory,
    make_file,
    make_hard_link,
    make_symlink,
    read_nodes,
)

PAGE = "It works: hello from usercontainerd\n"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www:x:1000:1000:www:/www:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = "root:x:0:\ndaemon:x:1:\nwww:x:1000:\nnogroup:x:65534:\n"

_SERVE = """\
#!/bin/sh
# httpd sets no handler for SIGTERM, and a PID 1 without one never gets it.
trap 'kill $!; exit 0' TERM INT
httpd -f -p 8080 -h /www &
wait $!
"""

# Of the root file system, one layer each: a Debian large enough to take a moment, with a Python to run.
_BIG_LAYERS = (
    ("etc", "usr/bin", "usr/sbin"),
    ("usr/lib/{triplet}",),
    ("usr/lib/python3", "usr/lib/python3.13"),
    ("usr/share/zoneinfo", "usr/share/terminfo", "usr/share/perl", "usr/share/doc"),
)
_BIG_SKIP = frozenset({"usr/bin/podman", "usr/bin/docker-registry"})


def seed_small_images(system: Path, registry: Path, work: Path) -> None:
    """busybox (OCI and, as tag `docker`, Docker's format), web, multi."""
    storage = RegistryStorage(registry)
    base = build_layer(list_busybox_nodes(system / "usr/bin/busybox"), work)
    busybox = build_image([base], {"Cmd": ["sh"], "Env": [PATH]})
    storage.add_image("busybox", "latest", busybox)
    storage.add_image("busybox", "docker", busybox, Format.DOCKER)
    storage.add_image("web", "latest", build_web_image(base, work))
    _add_multi_image(storage, base)


def _add_multi_image(storage: RegistryStorage, base: Layer) -> None:
    ours = find_architecture()
    for tag, form in (("latest", Format.OCI), ("docker", Format.DOCKER)):
        entries = []
        for architecture in sorted({"amd64", "arm64", ours}):
            # The foreign ones are not what they say, so that pulling the wrong one shows by its label.
            settings = {"Cmd": ["sh"], "Env": [PATH], "Labels": {"architecture": architecture}}
            image = build_image([base], settings, architecture)
            entries.append((storage.add_image("multi", f"{tag}-{architecture}", image, form), architecture))
        storage.add_index("multi", tag, entries, form)


def list_busybox_nodes(program: Path) -> Iterator[Node]:
    """A root file system of one static program and its many names."""
    listed = subprocess.run([program, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in ("bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/log"):
        yield make_directory(name)
    yield make_directory("root", 0o700)
    yield make_directory("tmp", 0o1777)
    yield make_directory("var/tmp", 0o1777)
    yield make_file("bin/busybox", program, 0o755)
    for applet in sorted(set(listed.split()) - {"busybox"}):
        yield make_hard_link(f"bin/{applet}", "bin/busybox")
    yield make_symlink("usr/bin/env", "../../bin/env")
    yield make_symlink("sbin", "bin")
    yield make_file("etc/passwd", _PASSWD)
    yield make_file("etc/group", _GROUP)
    yield make_file("etc/shadow", "root:*:::::::\n", 0o640)


def build_web_image(base: Layer, work: Path) -> Image:
    """A web server on port 8080 that serves one page, not as root."""
    pages = [
        make_directory("www", uid=1000, gid=1000),
        make_file("www/index.html", PAGE, uid=1000, gid=1000),
        make_file("bin/serve", _SERVE, 0o755),
    ]
    settings = {
        "Cmd": ["/bin/serve"],
        "Env": [PATH],
        "User": "1000:1000",
        "WorkingDir": "/www",
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {"org.opencontainers.image.title": "web"},
    }
    return build_image([base, build_layer(pages, work)], settings)


def seed_big_image(system: Path, registry: Path, work: Path) -> None:
    """A few layers with thousands of files, large enough for a pull to take a moment."""
    loaders = sorted((system / "usr/lib").glob("*-linux-gnu*"))
    triplet = loaders[0].name
    skip = frozenset(path.format(triplet=triplet) for path in _BIG_SKIP)
    layers = [build_layer(_list_skeleton(system), work)]
    for tops in _BIG_LAYERS:
        present = [top.format(triplet=triplet) for top in tops]
        nodes = (n for top in present if (system / top).exists() for n in read_nodes(system, top, skip))
        layers.append(build_layer(nodes, work, level=4))
    image = build_image(layers, {"Cmd": ["bash"], "Env": [PATH]})
    RegistryStorage(registry).add_image("big", "latest", image)


def _list_skeleton(system: Path) -> Iterator[Node]:
    for name in ("dev", "home", "proc", "run", "sys", "usr", "usr/lib", "usr/share", "var", "var/lib"):
        yield make_directory(name)
    yield make_directory("root", 0o700)
    yield make_directory("tmp", 0o1777)
    for name in ("bin", "sbin", "lib", "lib64", "usr/lib64"):
        path = system / name
        if path.is_symlink():
            yield make_symlink(name, str(path.readlink()))
        elif path.is_dir():
            yield from read_nodes(system, name)
