"""A container's log: which part of the journal it is, and how long to follow it."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.names import unit_name
from usercontainerd.base.times import parse_duration
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.kernel.spawning import spawn
from usercontainerd.systemd.journal import plan_journalctl, wait_for_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.base.paths import Paths

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
_RESTART_POLL = 0.2  # seconds between two looks for the next init of a container that restarts
_JOURNAL_PATIENCE = 1.5  # seconds for a journal that is behind; of a good end it may have no line to wait for
_SETTLE_TIME = 0.25  # seconds that journalctl -f may take to print what journald has


class LogRequest:
    """``lines`` counts from the end, None is all; times as docker takes them; ``timestamps`` in front of each line."""

    __slots__ = ("follow", "lines", "since", "timestamps", "until")

    def __init__(
        self,
        *,
        follow: bool = False,
        lines: int | None = None,
        since: str = "",
        until: str = "",
        timestamps: bool = False,
    ) -> None:
        self.follow = follow
        self.lines = lines
        self.since = since
        self.until = until
        self.timestamps = timestamps


def plan_log(paths: Paths, name: str, uid: int, request: LogRequest, now: float) -> list[str]:
    """Return the command that prints the log.

    A container made by ``create`` has no log from before that: an earlier one of its name may have left some.
    """
    since = parse_time(request.since, now)
    if not since:
        for directory in (paths.created_definitions, paths.passing_definitions):
            try:
                since = f"@{os.stat(f'{directory}/{name}.toml').st_mtime:.6f}"
            except FileNotFoundError:
                continue
    return plan_journalctl(
        unit_name(name),
        uid,
        follow=request.follow,
        lines=request.lines,
        since=since,
        until=parse_time(request.until, now),
        output="json" if request.timestamps else "cat",
    )


def parse_time(text: str, now: float) -> str:
    """Return systemd's form (systemd.time(7)) of docker's ``--since``.

    docker knows seconds since the epoch, RFC 3339, and ``10m`` or ``1h30m`` for so long ago; anything else is taken as
    systemd's own. Raises ``InvalidArgument`` for what begins with a hyphen.
    """
    if not text:
        return ""
    if text.replace(".", "", 1).isdecimal():
        return f"@{text}"
    try:
        return f"@{now - parse_duration(text):.6f}"
    except InvalidArgument:
        pass
    if text[0].isdecimal() and "T" in text:
        from datetime import datetime

        try:
            return f"@{datetime.fromisoformat(text).timestamp():.6f}"
        except ValueError:
            pass
    return text


def find_access_problem(paths: Paths, name: str) -> str | None:
    """Say why this user cannot read the container's journal, or None. Looks at the files that journald keeps.

    journald keeps a file for each user ID. What a process writes that is not root in its container goes to that of a
    subordinate ID, which only the groups that may read everything can open.
    """
    files = list_journal_files()
    if not files:
        return "there is no journal that can be seen: is systemd-journald running?"
    readable = [file for file in files if os.access(file, os.R_OK)]
    mend = "sudo usermod --append --groups systemd-journal $USER, and log in again"
    if not readable:
        return f"the journal may not be read by this user: {mend}"
    if len(readable) < len(files) and _runs_as_other(paths, name):
        return (
            "the container's processes are not root in it, so journald keeps what they write for their own user ID; "
            f"to read it: {mend}"
        )
    return None


def list_journal_files() -> list[str]:
    """The files of the journal that can be seen, whether they can be read or not."""
    return [
        f"{top}/{directory}/{file}"
        for top in ("/var/log/journal", "/run/log/journal")
        for directory in _list(top)
        for file in _list(f"{top}/{directory}")
        if file.endswith(".journal")
    ]


def _runs_as_other(paths: Paths, name: str) -> bool:
    import json

    try:
        with open(f"{paths.bundle(name)}/process.json", encoding="utf-8", errors="surrogateescape") as file:
            return bool(json.load(file)["user"]["uid"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def follow_log(
    paths: Paths, name: str, command: list[str], stdout: int | None, is_alive: Callable[[], bool]
) -> None:
    """Run ``command`` (journalctl -f) for as long as the container runs, restarts included.

    ``is_alive()`` asks systemd. Interrupted, it leaves nothing behind.
    """
    import select
    import time

    alive = 0.0  # when it was last seen to run
    journal = spawn(command, ENVIRONMENT, stdout=stdout)
    journal_fd = os.pidfd_open(journal)
    try:
        while True:
            moment = time.time()
            init = find_init(paths, name)
            alive = moment if init is not None else alive
            poll = select.poll()
            poll.register(journal_fd, select.POLLIN)
            if init is not None:
                poll.register(init.fd, select.POLLIN)
            ended = {fd for fd, _ in poll.poll(None if init is not None else _RESTART_POLL * 1000)}
            if init is not None:
                os.close(init.fd)
            if journal_fd in ended or not is_alive():
                break
        if journal_fd not in ended:
            if alive:
                wait_for_end(f"USER_UNIT={unit_name(name)}", since=f"{alive:.6f}", patience=_JOURNAL_PATIENCE)
            poll = select.poll()
            poll.register(journal_fd, select.POLLIN)
            poll.poll(_SETTLE_TIME * 1000)
    finally:
        try:
            os.kill(journal, 15)
        except ProcessLookupError:
            pass
        os.waitpid(journal, 0)
        os.close(journal_fd)


def render_timestamped(line: str) -> str:
    """One line of ``journalctl --output=json`` as ``docker logs -t`` shows it; a message of several lines too."""
    import json
    from datetime import UTC, datetime

    entry = json.loads(line)
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # not UTF-8, or with control characters: an array of bytes
        message = bytes(message).decode("utf-8", "replace")
    micros = int(entry.get("__REALTIME_TIMESTAMP", "0"))
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}000Z"
    return "".join(f"{stamp} {part}\n" for part in str(message or "").split("\n"))
