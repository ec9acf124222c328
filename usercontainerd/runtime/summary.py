"""What lists show of a container, and how its last run ended: two small text files that are read with ``str.split``.

Reading TOML or JSON for each line of ``ps`` would cost more than all the rest. ``prepare`` leaves a summary in the
bundle, true for what runs; the same format, with stamps of the files it was made from, serves as a cache for what
does not run. ``cleanup`` leaves the end of a run in the container's data directory, since systemd forgets a unit
that has ended well. Imports next to nothing.
"""

from __future__ import annotations

import posix as os

from usercontainerd.base.paths import decode_path
from usercontainerd.runtime.plan import escape_line, stamp_path, unescape_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usercontainerd.definition.model import Definition, Port

FORMAT = "usercontainerd-summary 1"
EXIT_FORMAT = "usercontainerd-exit 1"
_LIMIT = 1 << 20


class Summary:
    """``command`` is one line for people, ``ports`` as podman shows them, ``definition`` the file it came from.

    ``image_id`` is the digest, or empty while the image is not here. ``follows`` is the name whose image it ought to
    have: of one that runs, or was made of the image that the name meant then; else, and of a digest, it is empty, since
    the next start takes what is meant. ``applications`` are those that may use it over
    the bus. ``health`` is "checked" or empty.
    ``problem`` is the first error of a definition that cannot be used; then the rest is empty.
    """

    __slots__ = (
        "applications",
        "command",
        "definition",
        "follows",
        "health",
        "image",
        "image_id",
        "labels",
        "mounts",
        "network",
        "ports",
        "problem",
        "stamps",
    )

    def __init__(
        self,
        *,
        image: str = "",
        image_id: str = "",
        follows: str = "",
        command: str = "",
        ports: str = "",
        network: str = "",
        definition: str = "",
        health: str = "",
        problem: str = "",
        mounts: Iterable[str] = (),
        labels: Iterable[tuple[str, str]] = (),
        applications: Iterable[str] = (),
        stamps: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.image = image
        self.image_id = image_id
        self.follows = follows
        self.command = command
        self.ports = ports
        self.network = network
        self.definition = definition
        self.health = health
        self.problem = problem
        self.mounts = tuple(mounts)
        self.labels = tuple(labels)
        self.applications = tuple(applications)
        self.stamps = tuple(stamps)

    @property
    def is_current(self) -> bool:
        """Tell whether everything that it was made from is still as it was."""
        return all(stamp_path(path) == stamp for path, stamp in self.stamps)


_SINGLE = ("image", "image_id", "follows", "command", "ports", "network", "definition", "health", "problem")


def build_summary(
    definition: Definition,
    arguments: tuple[str, ...],
    image_id: str,
    image_labels: Iterable[tuple[str, str]] = (),
    stamps: Iterable[tuple[str, str]] = (),
    *,
    follows: str = "",
    checked: bool = False,
) -> Summary:
    """Summarise a definition; ``arguments`` are what it runs, entrypoint and command, ``checked`` tells whether its
    health is checked. As in docker, the image's labels are the container's, too.
    """
    return Summary(
        image=shorten_image(definition.image),
        image_id=image_id,
        follows=follows,
        command=" ".join(arguments),
        ports=render_ports(definition.ports),
        network=definition.network.value,
        definition=definition.sources[0] if definition.sources else "",
        health="checked" if checked else "",
        mounts=(mount.source or mount.target for mount in definition.mounts),
        labels={**dict(image_labels), **dict(definition.labels)}.items(),
        applications=definition.desktop.allow,
        stamps=stamps,
    )


def shorten_image(image: str) -> str:
    """Leave out the digest of a name that has a tag, too: people know images by their tags."""
    name, _, _ = image.partition("@")
    return name if ":" in name.rpartition("/")[2] else image


def render_ports(ports: Iterable[Port]) -> str:
    """Published ports as ``podman ps`` shows them: ``0.0.0.0:8080->80/tcp``."""
    shown = []
    for port in ports:
        address = f"[{port.address}]" if ":" in port.address else port.address or "0.0.0.0"  # noqa: S104
        host, inside = (_render_range(first, port.length) for first in (port.host, port.container))
        shown.append(f"{address}:{host}->{inside}/{port.protocol}")
    return ", ".join(shown)


def parse_ports(text: str) -> list[tuple[str, int, int, int, str]]:
    """What ``render_ports`` wrote: (address, the host's first port, the container's, how many, protocol) of each."""
    found = []
    for shown in filter(None, text.split(", ")):
        outside, _, inside = shown.partition("->")
        address, _, host = outside.rpartition(":")
        container, _, protocol = inside.partition("/")
        first, _, last = host.partition("-")
        length = int(last or first) - int(first) + 1
        found.append((address.strip("[]"), int(first), int(container.partition("-")[0]), length, protocol))
    return found


def _render_range(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}-{first + length - 1}"


def render_summary(summary: Summary) -> str:
    """The text of a summary file."""
    lines = [
        FORMAT,
        *(f"{key} {escape_line(getattr(summary, key))}" for key in _SINGLE),
        *(f"mount {escape_line(mount)}" for mount in summary.mounts),
        *(f"label {escape_line(name)}={escape_line(value)}" for name, value in summary.labels),
        *(f"application {escape_line(each)}" for each in summary.applications),
        *(f"stamp {stamp} {escape_line(path)}" for path, stamp in summary.stamps),
    ]
    return "\n".join(lines) + "\n"


def parse_summary(text: str) -> Summary | None:
    """Read a summary; None if another version wrote it or it is damaged."""
    lines = text.split("\n")
    if lines[0] != FORMAT or lines[-1] != "":
        return None
    single: dict[str, str] = {}
    mounts, labels, applications, stamps = [], [], [], []
    for line in lines[1:-1]:
        key, _, value = line.partition(" ")
        if key == "stamp":
            stamp, _, path = value.partition(" ")
            stamps.append((unescape_line(path), stamp))
        elif key == "label":
            name, _, content = value.partition("=")
            labels.append((unescape_line(name), unescape_line(content)))
        elif key == "mount":
            mounts.append(unescape_line(value))
        elif key == "application":
            applications.append(unescape_line(value))
        elif key in _SINGLE:
            single[key] = unescape_line(value)
    return Summary(**single, mounts=mounts, labels=labels, applications=applications, stamps=stamps)


def read_summary(path: str) -> Summary | None:
    """Read a summary file; None if there is none that can be used."""
    text = _read(path)
    return None if text is None else parse_summary(text)


def _read(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return decode_path(os.read(fd, _LIMIT))
    except OSError:
        return None
    finally:
        os.close(fd)


class ExitRecord:
    """How a run ended: ``result`` is systemd's (``success``, ``exit-code``, ``oom-kill``…), ``status`` as docker has
    it (128 and the signal for a killed one); times in seconds since the epoch,
    ``started`` 0 if the container never came to run.
    """

    __slots__ = ("finished", "result", "started", "status")

    def __init__(self, result: str, status: int, started: float, finished: float) -> None:
        self.result = result
        self.status = status
        self.started = started
        self.finished = finished


def describe_exit(record: ExitRecord) -> str:
    """One sentence on how a run failed, empty if it ended well."""
    if record.result == "success":
        return ""
    return {
        "oom-kill": "it ran out of memory and was killed",
        "timeout": "it took longer than its timeout",
        "watchdog": "its watchdog ran out",
    }.get(record.result) or (
        f"it was killed by signal {record.status - 128}"
        if record.result in ("signal", "core-dump") and record.status > 128
        else f"it ended with exit status {record.status}"
    )


def exit_file(data: str) -> str:
    """Where the end of a container's last run is kept, below its data directory."""
    return f"{data}/exit"


def render_exit(environment: Mapping[str, str], started: float, finished: float) -> str:
    """The text of an exit file, from the environment of an ``ExecStopPost=`` program (systemd.exec(5))."""
    words = (environment.get(key) or "-" for key in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
    return f"{EXIT_FORMAT}\n{' '.join(words)} {started:.3f} {finished:.3f}\n"


def parse_exit(text: str) -> ExitRecord | None:
    """Read an exit file; None if it is damaged."""
    first, _, line = text.partition("\n")
    words = line.split()
    if first != EXIT_FORMAT or len(words) != 5:
        return None
    result, code, status, started, finished = words
    try:
        return ExitRecord(result, _read_status(code, status), float(started), float(finished))
    except (KeyError, ValueError):
        return None


def _read_status(code: str, status: str) -> int:
    """``exited 7`` is 7; ``killed TERM`` is 143, as shells and docker say it."""
    if code == "exited":
        return int(status)
    from usercontainerd.definition.vocabulary import find_signal_number

    return 128 + find_signal_number(f"SIG{status}")


def parse_end(text: str) -> int | None:
    """Read what ``runtime.caller.render_end`` wrote: the exit status of a run, None if the container never ran."""
    words = text.split()
    if len(words) != 4 or words[3] != "1":
        return None
    try:
        return _read_status(words[1], words[2])
    except (KeyError, ValueError):
        return None


def read_exit(data: str) -> ExitRecord | None:
    """How the last run ended; None if that is not known."""
    text = _read(exit_file(data))
    return None if text is None else parse_exit(text)
