"""The processes of a running container, as podman's ``top`` describes them: from /proc, and nothing is run for it."""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import HostError, InvalidArgument, NotRunning
from usercontainerd.engine.containers.exec_process import read_accounts_of
from usercontainerd.engine.containers.lookup import find_group, get_init
from usercontainerd.kernel.cgroups import read_kernel_file
from usercontainerd.kernel.processes import (
    find_pid_namespace,
    list_group_processes,
    read_process,
    read_uptime,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usercontainerd.base.paths import Paths
    from usercontainerd.kernel.processes import Process

DEFAULT = ("user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args")
_MOST_COLUMNS = 64  # more than there are
# What ps(1) calls a whole set of columns, and other names for single ones.
_SETS = {
    "ef": ("user", "pid", "ppid", "pcpu", "stime", "tty", "time", "args"),
    "aux": ("user", "pid", "pcpu", "vsz", "rss", "tty", "state", "stime", "time", "args"),
}
_OTHER_NAMES = {"cmd": "args", "command": "args", "ucmd": "comm", "uid": "user", "uname": "user", "%cpu": "pcpu",
                "tname": "tty", "tt": "tty", "cputime": "time", "stat": "state", "s": "state", "ni": "nice",
                "vsize": "vsz"}  # fmt: skip


class View:
    """What is needed to say what a process is in the container: names and numbers there."""

    def __init__(
        self, accounts: tuple[str, str], maps: tuple[bytes, bytes], processes: list[Process]
    ) -> None:
        self._users, self._groups = map(read_names, accounts)
        self._uids, self._gids = map(parse_map, maps)
        self.inner = {process.ids[0]: process.ids[-1] for process in processes}
        self.uptime = read_uptime()
        self.now = time.time()

    def show_user(self, process: Process) -> str:
        """The user as the container knows it."""
        number = map_id(process.uid, self._uids)
        return self._users.get(number, str(number))

    def show_group(self, process: Process) -> str:
        """The group as the container knows it."""
        number = map_id(process.gid, self._gids)
        return self._groups.get(number, str(number))

    def elapsed(self, process: Process) -> float:
        """Seconds since its start."""
        return max(0.0, self.uptime - process.started)

    def show_start(self, process: Process) -> str:
        """The time of day of its start."""
        return time.strftime("%H:%M:%S", time.localtime(self.now - self.elapsed(process)))

    def show_share(self, process: Process) -> str:
        """How much of a processor it has had since its start, in percent."""
        elapsed = self.elapsed(process)
        return f"{100 * process.cpu / elapsed if elapsed else 0.0:.3f}"


COLUMNS: dict[str, tuple[str, Callable[[Process, View], str]]] = {
    "args": ("COMMAND", lambda each, _: each.arguments),
    "comm": ("COMMAND", lambda each, _: each.name),
    "etime": ("ELAPSED", lambda each, view: show_span(view.elapsed(each))),
    "group": ("GROUP", lambda each, view: view.show_group(each)),
    "hgroup": ("HGROUP", lambda each, _: str(each.gid)),
    "hpid": ("HPID", lambda each, _: str(each.ids[0])),
    "huser": ("HUSER", lambda each, _: str(each.uid)),
    "nice": ("NI", lambda each, _: str(each.nice)),
    "pcpu": ("%CPU", lambda each, view: view.show_share(each)),
    "pgid": ("PGID", lambda each, view: str(view.inner.get(each.group, 0))),
    "pid": ("PID", lambda each, _: str(each.ids[-1])),
    "ppid": ("PPID", lambda each, view: str(view.inner.get(each.parent, 0))),
    "rss": ("RSS", lambda each, _: str(each.resident // 1024)),
    "state": ("STATE", lambda each, _: each.state),
    "stime": ("STIME", lambda each, view: view.show_start(each)),
    "time": ("TIME", lambda each, _: show_span(each.cpu)),
    "tty": ("TTY", lambda each, _: show_terminal(each.tty)),
    "user": ("USER", lambda each, view: view.show_user(each)),
    "vsz": ("VSZ", lambda each, _: str(each.virtual // 1024)),
}


def parse_columns(words: Sequence[str]) -> tuple[str, ...]:
    """Read podman's descriptors (``pid comm``, ``pid,comm``), or ``-ef``, ``aux``, ``-o pid,comm`` as ps(1) has them.

    Raises ``InvalidArgument``.
    """
    if len(words) == 1 and words[0].removeprefix("-") in _SETS:
        return _SETS[words[0].removeprefix("-")]
    rest = [word for word in words if word not in ("-o", "-eo", "--format", "-e")]
    names = [name.strip().lower() for word in rest for name in word.split(",") if name.strip()]
    columns = tuple(_OTHER_NAMES.get(name, name) for name in names)
    for name in columns:
        if name not in COLUMNS:
            raise InvalidArgument(
                f'"{name}" is no column', hint=f"possible are {', '.join(COLUMNS)}, and the sets -ef and aux"
            )
    if len(columns) > _MOST_COLUMNS:
        raise InvalidArgument(f"more than {_MOST_COLUMNS} columns")
    return columns or DEFAULT


def list_processes(paths: Paths, name: str, columns: Sequence[str]) -> list[list[str]]:
    """Return a row of ``columns`` for each process of a container. Raises ``NotRunning``."""
    init = get_init(paths, name)
    try:
        group = find_group(paths, name)
        if group is None:
            raise NotRunning("the container has just ended", where=name)
        processes = find_own_processes(group, init.pid)
        maps = (read_kernel_file(f"/proc/{init.pid}/uid_map"), read_kernel_file(f"/proc/{init.pid}/gid_map"))
        view = View(read_accounts_of(init), maps, processes)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotRunning("the container has just ended", where=name) from error
    except OSError as error:
        raise HostError(f"cannot look into the container: {error.strerror}", where=name) from error
    finally:
        os.close(init.fd)
    return [[COLUMNS[column][1](process, view) for column in columns] for process in processes]


def find_own_processes(group: str, init: int) -> list[Process]:
    """The processes in the container's cgroup that it can see itself: not its network's, which is outside.

    Those of PID namespaces that it has made are below one of its own.
    """
    namespace = find_pid_namespace(init)
    found: dict[int, Process] = {}
    for pid in sorted(set(list_group_processes(group))):
        process = read_process(pid)
        if process is not None and (find_pid_namespace(pid) == namespace or process.parent in found):
            found[pid] = process
    return list(found.values())


def parse_map(text: bytes) -> list[tuple[int, int, int]]:
    """The ranges of a uid_map: (inside, outside, length)."""
    return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in text.splitlines())]


def map_id(number: int, ranges: list[tuple[int, int, int]]) -> int:
    """What an ID of ours is inside; 65534 if it is nothing there."""
    for inside, outside, length in ranges:
        if outside <= number < outside + length:
            return inside + number - outside
    return 65534


def read_names(text: str) -> dict[int, str]:
    """The names in passwd(5) or group(5), by number."""
    rows = (line.split(":") for line in reversed(text.splitlines()))
    return {int(row[2]): row[0] for row in rows if len(row) > 2 and row[2].isdecimal() and len(row[2]) < 11}


def show_span(seconds: float) -> str:
    """A span as podman writes it, to the hundredth: ``1h2m3.4s``, ``0s``."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    last = f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{last}" if hours else f"{minutes}m{last}" if minutes else last


def show_terminal(device: int) -> str:
    """``pts/0``, ``?`` for none."""
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    if not device:
        return "?"
    return f"pts/{minor}" if 136 <= major <= 143 else f"{major}:{minor}"
