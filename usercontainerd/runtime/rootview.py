"""Reading a few files of an image as the container would see them; runs as ``inspect-root`` in a user namespace.

The layers are untrusted: each path is resolved by the kernel inside the mounted root, whatever symlinks say.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import RuntimeFailure, UsercontainerError
from usercontainerd.kernel.idmap import IdMap, parse_id_map
from usercontainerd.kernel.userns import enter_user_namespace
from usercontainerd.runtime.streamnames import Command, Search, parse_command, render_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FILES = ("etc/passwd", "etc/group")
MAX_FILE = 1 << 20
PLACE = "/tmp"  # to mount over, in a namespace of our own


class RootView:
    """What was found: ``passwd`` and ``group``, empty if not there; ``stream_names`` says why the output should be one
    that can be opened by name, see ``runtime/streamnames.py``.
    """

    __slots__ = ("group", "passwd", "stream_names")

    def __init__(self, passwd: str = "", group: str = "", stream_names: str = "") -> None:
        self.passwd = passwd
        self.group = group
        self.stream_names = stream_names


def view_root(program: str, id_map: IdMap, layers: Sequence[str], command: Command | None = None) -> RootView:
    """Look into the image that ``layers`` (topmost first) make, by the program ``inspect-root``.

    Without a ``command`` nothing is looked for but the users.
    """
    import subprocess

    result = subprocess.run(
        [program, id_map.render(), *layers],
        input=render_command(command) if command is not None else b"",
        capture_output=True,
        check=False,
        timeout=60,
    )
    if result.returncode != 0:
        if not all(map(os.path.isdir, layers)):
            raise RuntimeFailure(
                "the image was removed just now", where=program, hint="start it again to have it pulled"
            )
        raise RuntimeFailure(
            "cannot look into the image: " + result.stderr.decode("utf-8", "replace").strip()[-500:],
            where=program,
        )
    return RootView(*result.stdout.decode("utf-8", "replace").split("\0"))


def render_view(view: RootView) -> bytes:
    """What was found, as a file: three texts, a NUL between."""
    return "\0".join((view.passwd, view.group, view.stream_names)).encode()


def read_view(path: str) -> RootView | None:
    """Read what ``render_view`` made; None if there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            parts = file.read().split("\0")
    except (OSError, UnicodeDecodeError):
        return None
    return RootView(*parts) if len(parts) == 3 else None


def _open_root(layers: Sequence[str]) -> int:
    from usercontainerd.kernel.overlay import link_directories, open_directory
    from usercontainerd.kernel.syscalls import MS_RDONLY, mount

    directories = [open_directory(layer) for layer in layers]
    if len(directories) == 1:
        return directories[0]
    mount("tmpfs", PLACE, "tmpfs")
    os.chdir(PLACE)
    lower = link_directories(directories)
    os.mkdir("root")
    mount("overlay", "root", "overlay", MS_RDONLY, f"userxattr,lowerdir={lower}")
    return open_directory("root")


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


def _read_input() -> bytes:
    with open(0, "rb", closefd=False) as file:
        return file.read()


def main(arguments: list[str]) -> int:
    """``inspect-root ID-MAP LAYER… <COMMAND``: prints the two files and the phrase on the output, a NUL between."""
    try:
        command = _read_input()
        enter_user_namespace(parse_id_map(arguments[0]))
        root = _open_root(arguments[1:])
        reason = Search(root).find_reason(parse_command(command)) if command else ""
        files = (_read_file(root, path) for path in FILES)
        with open(1, "wb", closefd=False) as output:
            output.write(b"\0".join((*files, reason.encode("utf-8", "replace"))))
    except (UsercontainerError, OSError) as error:
        os.write(2, f"{error}\n".encode("utf-8", "replace"))
        return 1
    return 0
