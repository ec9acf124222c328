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

FILES = ("etc/passwd", "etc/group")
MAX_FILE = 1 << 20


def read_accounts(program: str, id_map: IdMap, layers: Sequence[str]) -> tuple[str, str]:
    """Return the image's /etc/passwd and /etc/group, empty where it has none. ``layers``: topmost first."""
    import subprocess

    result = subprocess.run([program, id_map.render(), *layers], capture_output=True, check=False, timeout=60)
    if result.returncode != 0:
        raise RuntimeFailure(
            "cannot look into the image: " + result.stderr.decode("utf-8", "replace").strip()[-500:],
            where=program,
        )
    passwd, _, group = result.stdout.decode("utf-8", "replace").partition("\0")
    return passwd, group


def _open_root(layers: Sequence[str]) -> int:
    from usercontainerd.kernel.syscalls import mount

    if len(layers) == 1:
        return os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # A tmpfs of our own namespace holds short names for the layers: no path of theirs gets into the options.
    mount("tmpfs", "/tmp", "tmpfs")
    os.chdir("/tmp")
    os.mkdir("root")
    for index, layer in enumerate(layers):
        os.symlink(layer, str(index))
    mount("overlay", "root", "overlay", 1, "userxattr,lowerdir=" + ":".join(map(str, range(len(layers)))))
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


def main(arguments: list[str]) -> int:
    """``inspect-root ID-MAP LAYER…``: prints the two files with a NUL between them."""
    try:
        enter_user_namespace(parse_id_map(arguments[0]))
        root = _open_root(arguments[1:])
        os.write(1, _read_file(root, FILES[0]) + b"\0" + _read_file(root, FILES[1]))
    except (UsercontainerError, OSError) as error:
        os.write(2, f"{error}\n".encode("utf-8", "replace"))
        return 1
    return 0
