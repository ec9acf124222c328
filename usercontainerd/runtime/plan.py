"""The launch plan: the few lines that the launcher needs, beside config.json in the bundle.

Preparing a bundle is slow (JSON, TOML, maybe a pull); starting it must not be. So ``prepare`` leaves a text file
that is read with ``str.split``, and which lists the files it was made from: as long as each has the same stamp, the
bundle is current. Imports next to nothing.

Format: a line ``usercontainerd-plan 1 VERSION``, then ``key value`` lines; in values, backslash and newline are
written ``\\\\`` and ``\\n``.
"""

from __future__ import annotations

import posix as os

from usercontainerd.base.paths import decode_path
from usercontainerd.kernel.idmap import IdMap, parse_id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = "usercontainerd-plan 1"
ABSENT = "-"
# A stamp that no path has: the bundle is prepared at every start (the image's pull policy wants to ask).
NEVER_CURRENT = ("", "always")


class LaunchPlan:
    """What the launcher does beyond what every container needs.

    ``network`` is ``pasta``, ``none`` or ``host``; ``pasta`` holds its command, ``ports`` what
    it publishes, as (protocol, address, first, length); ``layers`` counts the symlinks
    ``lower/0`` (topmost) and up; ``volumes`` are (directory, target) pairs to fill from the image while they are
    empty; ``init_system``: the command manages its cgroup itself, as systemd does, and needs it for itself;
    ``keep`` keeps the writable layer; ``ready`` is false when the application itself says READY; ``pipe`` puts a pipe
    and cat(1) between the container and the journal; ``terminal`` gives it a terminal, ``interactive`` an input that
    does not end where no caller lends one; ``remove``: nothing stays of it when it has ended; ``cgroup`` holds limits
    to repeat in the container's own cgroup, where applications look for them;
    ``stamps`` are (path, stamp) pairs of everything that the bundle was made from.
    """

    __slots__ = (
        "cgroup",
        "crun",
        "data",
        "id_map",
        "init_system",
        "interactive",
        "keep",
        "layers",
        "network",
        "pasta",
        "pipe",
        "ports",
        "ready",
        "remove",
        "stamps",
        "terminal",
        "volumes",
    )

    def __init__(
        self,
        *,
        id_map: IdMap,
        network: str,
        layers: int,
        data: str,
        crun: str = "/usr/bin/crun",
        init_system: bool = False,
        keep: bool = False,
        ready: bool = True,
        pipe: bool = False,
        terminal: bool = False,
        interactive: bool = False,
        remove: bool = False,
        pasta: Iterable[str] = (),
        ports: Iterable[tuple[str, str, int, int]] = (),
        cgroup: Iterable[tuple[str, str]] = (),
        volumes: Iterable[tuple[str, str]] = (),
        stamps: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.id_map = id_map
        self.network = network
        self.layers = layers
        self.data = data
        self.crun = crun
        self.init_system = init_system
        self.keep = keep
        self.ready = ready
        self.pipe = pipe
        self.terminal = terminal
        self.interactive = interactive
        self.remove = remove
        self.pasta = tuple(pasta)
        self.ports = tuple(ports)
        self.cgroup = tuple(cgroup)
        self.volumes = tuple(volumes)
        self.stamps = tuple(stamps)


def stamp_path(path: str) -> str:
    """Return a text that changes whenever the file, or the directory's list of names, does."""
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    return f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_size}:{status.st_dev}:{status.st_ino}"


def is_current(plan: LaunchPlan) -> bool:
    """Tell whether everything that the bundle was made from is still as it was."""
    return all(stamp_path(path) == stamp for path, stamp in plan.stamps)


def escape_line(text: str) -> str:
    """Make ``text`` one line."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def unescape_line(text: str) -> str:
    """Undo ``escape_line``."""
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))


def render_plan(plan: LaunchPlan, version: str) -> str:
    """The text of a plan file."""
    lines = [
        f"{FORMAT} {version}",
        f"id_map {plan.id_map.render()}",
        f"network {plan.network}",
        f"layers {plan.layers}",
        f"data {escape_line(plan.data)}",
        f"crun {escape_line(plan.crun)}",
        f"init_system {int(plan.init_system)}",
        f"keep {int(plan.keep)}",
        f"ready {int(plan.ready)}",
        f"pipe {int(plan.pipe)}",
        f"terminal {int(plan.terminal)}",
        f"interactive {int(plan.interactive)}",
        f"remove {int(plan.remove)}",
        *(f"pasta {escape_line(argument)}" for argument in plan.pasta),
        *(f"port {protocol} {first} {length} {address}" for protocol, address, first, length in plan.ports),
        *(f"cgroup {file} {value}" for file, value in plan.cgroup),
        *(
            f"volume {escape_line(directory)}\ntarget {escape_line(target)}"
            for directory, target in plan.volumes
        ),
        *(f"stamp {stamp} {escape_line(path)}" for path, stamp in plan.stamps),
    ]
    return "\n".join(lines) + "\n"


def parse_plan(text: str, version: str | None) -> LaunchPlan | None:
    """Read a plan; None if another version than ``version`` wrote it or it is damaged (it is then simply made anew).

    Without a ``version``, one by any version that has this format: what runs now was started by it.
    """
    lines = text.split("\n")
    written = lines[0].startswith(f"{FORMAT} ") if version is None else lines[0] == f"{FORMAT} {version}"
    if not written or lines[-1] != "":
        return None
    # What earlier versions did not know.
    single = {} if version is not None else dict.fromkeys(("terminal", "interactive", "remove"), "0")
    pasta, ports, cgroup, stamps, directories, targets = [], [], [], [], [], []
    try:
        for line in lines[1:-1]:
            key, _, value = line.partition(" ")
            if key == "stamp":
                stamp, _, path = value.partition(" ")
                stamps.append((unescape_line(path), stamp))
            elif key == "pasta":
                pasta.append(unescape_line(value))
            elif key == "port":
                protocol, first, length, address = value.split(" ")
                ports.append((protocol, address, int(first), int(length)))
            elif key == "volume":
                directories.append(unescape_line(value))
            elif key == "target":
                targets.append(unescape_line(value))
            elif key == "cgroup":
                file, _, limit = value.partition(" ")
                cgroup.append((file, limit))
            else:
                single[key] = value
        return LaunchPlan(
            id_map=parse_id_map(single["id_map"]),
            network=single["network"],
            layers=int(single["layers"]),
            data=unescape_line(single["data"]),
            crun=unescape_line(single["crun"]),
            init_system=single["init_system"] == "1",
            keep=single["keep"] == "1",
            ready=single["ready"] == "1",
            pipe=single["pipe"] == "1",
            terminal=single["terminal"] == "1",
            interactive=single["interactive"] == "1",
            remove=single["remove"] == "1",
            pasta=pasta,
            ports=ports,
            cgroup=cgroup,
            volumes=zip(directories, targets, strict=True),
            stamps=stamps,
        )
    except (KeyError, ValueError, TypeError):
        return None


def read_plan(path: str, version: str | None) -> LaunchPlan | None:
    """Read a plan file as ``parse_plan`` does; None if there is none that can be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        data = b""
        while chunk := os.read(fd, 1 << 16):
            data += chunk
    finally:
        os.close(fd)
    return parse_plan(decode_path(data), version)
