"""The copier: cat(1) between a container's output, a pipe, and the unit's, which is the journal's socket.

It reads the pipe to its end, which comes with the death of the last writer, and then opens a FIFO in the bundle; that
waits until ``cleanup`` opens the other side. So ``cleanup`` learns that everything has been copied, and the copier is
still there when the journal asks, by its process ID, which unit a line belongs to: it is let go when the kernel says
that the journal has read all of it, and the journal, which does one thing after the other, has then read an empty line
of our own, too, which it makes nothing of. A copier that is killed loses what it had in hand: systemd must leave it
alone until then (``KillMode=process``, see ``systemd/unit.py``).
"""

from __future__ import annotations

import errno
import posix as os

from usercontainerd.base.paths import parent_of
from usercontainerd.kernel.cgroups import read_cgroup, read_own_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CAT = "/usr/bin/cat"
# signal(7): HUP, INT, QUIT, USR1, USR2, ALRM and those for real time. `systemctl kill` sends to all processes of a
# unit, and what is for the container must not end its output. TERM must: where systemd has lost the unit's settings
# (the package or the definition is gone), no cleanup comes, and a stop would wait for the copier until its timeout.
NOT_FOR_IT = (1, 2, 3, 10, 12, 14, *range(34, 65))
FIFO = "copied"  # in the bundle, as is the next
PID_FILE = "copier"
PATIENCE = 2.0  # seconds until a pipe that somebody keeps open is given up
POLL = 0.0005
LINGER = (
    0.01  # seconds that the journal gets to look at the copier where the kernel does not say what it has read
)


def start_copier(bundle: str, environment: Mapping[str, str], ends: tuple[int, int]) -> None:
    """Let cat(1) copy what comes out of the pipe of these ``ends`` to our own output; closes both."""
    os.close(ends[1])
    _start(bundle, environment, ends[0])


def _start(bundle: str, environment: Mapping[str, str], source: int, stderr: int | None = None) -> None:
    from usercontainerd.kernel.spawning import spawn

    try:
        os.mkfifo(f"{bundle}/{FIFO}", 0o600)
    except FileExistsError:
        pass  # its clean-up was killed
    pid = spawn(
        [CAT, "-", f"{bundle}/{FIFO}"], environment, stdin=source, stderr=stderr, blocked_signals=NOT_FOR_IT
    )
    os.close(source)
    with open(f"{bundle}/{PID_FILE}", "w", encoding="utf-8") as file:
        file.write(str(pid))


def start_terminal_copier(bundle: str, environment: Mapping[str, str], master: int) -> None:
    """Let cat(1) copy what is written to a terminal, given by its master, to our own output; closes ``master``."""
    # The end of a terminal is an error of read(2), of which nobody needs to hear.
    quiet = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    _start(bundle, environment, master, quiet)
    os.close(quiet)


def finish_copier(bundle: str, environment: Mapping[str, str]) -> bool:
    """Wait, with bounded patience, until everything is copied, and let the copier end; False if there was none.

    ``environment`` is that of the unit's program that we are.
    """
    import time

    try:
        with open(f"{bundle}/{PID_FILE}", encoding="utf-8") as file:
            pid = int(file.read())
    except (FileNotFoundError, ValueError):
        return False
    deadline = time.monotonic() + PATIENCE
    while (fd := _open_other_side(f"{bundle}/{FIFO}")) is None:
        if not _is_ours(pid) or time.monotonic() > deadline:
            break
        time.sleep(POLL)
    else:
        if not wait_until_read(pid, deadline, environment.get("JOURNAL_STREAM", "")):
            time.sleep(LINGER)
        os.close(fd)
    for name in (PID_FILE, FIFO):
        try:
            os.unlink(f"{bundle}/{name}")
        except FileNotFoundError:
            pass
    return True


def wait_until_read(pid: int, deadline: float, journal: str) -> bool:
    """Wait until the journal has done with all that the process has written; False where that cannot be known.

    ``journal`` is ``$JOURNAL_STREAM``, and should be our standard error.
    """
    import time

    from usercontainerd.kernel.notification import is_journal
    from usercontainerd.kernel.unixdiag import count_unread, find_socket

    inode, own = find_socket(pid, 1), find_socket(os.getpid(), 2)
    if inode is None or own is None or not is_journal(journal):
        return False
    while count := count_unread(inode):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    if count is None:
        return False
    os.write(2, b"\n")
    while count_unread(own):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL / 5)
    return True


def _open_other_side(fifo: str) -> int | None:
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):  # the copier is not there yet
            return None
        raise


def _is_ours(pid: int) -> bool:
    """Tell whether the process is one of our unit: its number may be another's by now."""
    own, other = read_own_cgroup(), read_cgroup(pid)
    return own is not None and other is not None and parent_of(own) == parent_of(other)
