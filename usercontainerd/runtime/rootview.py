"""Reading a few files of an image as the container would see them; runs as ``inspect-root`` in a user namespace.

The layers are untrusted: each path is resolved by the kernel inside the mounted root, whatever symlinks say.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import RuntimeFailure, UsercontainerError
from usercontainerd.kernel.idmap import IdMap, parse_id_map
from usercontainerd.kernel.userns import enter_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STREAM_FDS = tuple(f"{place}/{fd}" for place in ("dev/fd", "proc/self/fd", "proc/1/fd") for fd in (1, 2))
FILES = ("etc/passwd", "etc/group")
MAX_FILE = 1 << 20
LOGS = "var/log"
MAX_LOG_ENTRIES = 2000
# What a log that is meant for the container's output links to: none of them can be opened if that is a socket.
STREAMS = frozenset(f"/{place}" for place in ("dev/stdout", "dev/stderr", *STREAM_FDS))


class RootView:
    """What was found: ``passwd`` and ``group``, empty if not there, and whether logs are links to streams."""

    __slots__ = ("group", "logs_to_streams", "passwd")

    def __init__(self, passwd: str = "", group: str = "", *, logs_to_streams: bool = False) -> None:
        self.passwd = passwd
        self.group = group
        self.logs_to_streams = logs_to_streams


def view_root(program: str, id_map: IdMap, layers: Sequence[str]) -> RootView:
    """Look into the image that ``layers`` (topmost first) make, by the program ``inspect-root``."""
    import subprocess

    result = subprocess.run([program, id_map.render(), *layers], capture_output=True, check=False, timeout=60)
    if result.returncode != 0:
        if not all(map(os.path.isdir, layers)):
            raise RuntimeFailure(
                "the image was removed just now", where=program, hint="start it again to have it pulled"
            )
        raise RuntimeFailure(
            "cannot look into the image: " + result.stderr.decode("utf-8", "replace").strip()[-500:],
            where=program,
        )
    passwd, group, links = result.stdout.decode("utf-8", "replace").split("\0")
    return RootView(passwd, group, logs_to_streams=links == "links")


def _open_root(layers: Sequence[str]) -> int:
    from usercontainerd.kernel.syscalls import MS_RDONLY, mount

    if len(layers) == 1:
        return os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # A tmpfs of our own namespace holds short names for the layers: no path of theirs gets into the options.
    mount("tmpfs", "/tmp", "tmpfs")
    os.chdir("/tmp")
    os.mkdir("root")
    for index, layer in enumerate(layers):
        os.symlink(layer, str(index))
    mount(
        "overlay",
        "root",
        "overlay",
        MS_RDONLY,
        "userxattr,lowerdir=" + ":".join(map(str, range(len(layers)))),
    )
    return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _read_file(root: int, path: str) -> bytes:
    from usercontainerd.kernel.syscalls import openat2

    try:
        fd = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        with open(fd, "rb") as file:
            return file.read(MAX_FILE).replace(b"\0", b"")
    except OSError:  # a directory, say
        return b""


def _find_stream_links(root: int) -> bool:
    """Tell whether something in /var/log is a link to /dev/stdout or the like; looks at no more than a bounded part."""
    from usercontainerd.kernel.syscalls import openat2

    try:
        start = openat2(root, LOGS, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    seen = 0
    try:
        for _, directories, files, directory in os.fwalk(".", dir_fd=start, onerror=None):
            for name in (*files, *directories):
                seen += 1
                try:
                    if os.readlink(name, dir_fd=directory) in STREAMS:
                        return True
                except OSError:
                    pass  # not a link
            if seen > MAX_LOG_ENTRIES:
                break
    except OSError:
        pass
    finally:
        os.close(start)
    return False


def main(arguments: list[str]) -> int:
    """``inspect-root ID-MAP LAYER…``: prints the two files and ``links`` or nothing, with a NUL between."""
    try:
        enter_user_namespace(parse_id_map(arguments[0]))
        root = _open_root(arguments[1:])
        links = b"links" if _find_stream_links(root) else b""
        with open(1, "wb", closefd=False) as output:
            output.write(b"\0".join((*(_read_file(root, path) for path in FILES), links)))
    except (UsercontainerError, OSError) as error:
        os.write(2, f"{error}\n".encode("utf-8", "replace"))
        return 1
    return 0
