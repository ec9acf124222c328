"""A unit's log, by journalctl(1): the journal is read by the one program that knows all of its formats.

Plans are pure; to follow a log, exec the plan, so that nothing of ours stays between it and the terminal.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import SystemdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

JOURNALCTL = "/usr/bin/journalctl"
# What systemd says when a run has failed, or was stopped (of one that ends well by itself it says nothing), see
# sd-messages.h: SD_MESSAGE_UNIT_FAILURE_RESULT, SD_MESSAGE_UNIT_STOPPED.
RUN_ENDED = ("d9b373ed55a64feb8242e02dbe79a49c", "9d1aaa27d60140bd96365438aad20286")
_POLL = 0.05  # seconds between two looks for a line that is to come
LONGEST_TAIL = 64 * 1024  # bytes; what explains a failure fits


def plan_journalctl(
    unit: str,
    uid: int,
    *,
    follow: bool = False,
    lines: int | None = None,
    since: str = "",
    until: str = "",
    invocation: str = "",
    output: str = "cat",
) -> list[str]:
    """Return the command that prints what the processes of ``unit``, of the user ``uid``, have written.

    systemd's own words on the unit are left out. ``lines`` counts from the end; ``since`` and ``until`` are
    times of systemd.time(7); ``invocation`` limits it to one run (``InvocationID``); ``output`` is
    journalctl's ``--output``. The system's journal is searched too: without ``/var/log/journal`` users have
    none of their own.
    """
    command = [JOURNALCTL, "--quiet", "--no-pager", "--all", f"--output={output}"]
    if follow:
        command.append("--follow")
    # journalctl -f shows ten lines where docker and podman show all.
    if lines is not None or follow:
        command.append(f"--lines={'all' if lines is None else lines}")
    command += [f"--since={since}"] if since else []
    command += [f"--until={until}"] if until else []
    # The owner of the unit, not _UID: a process that is not root in its container has a subordinate ID.
    command += [f"_SYSTEMD_USER_UNIT={unit}", f"_SYSTEMD_OWNER_UID={uid}"]
    return [*command, f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else command


def plan_run(invocation: str, identifier: str, *, since: str, lines: int) -> list[str]:
    """Return the command that prints the last lines of one run, and of others of its identifier since it began.

    Those because the journal loses the unit of a line whose writer has ended before it looks. ``since`` is in seconds.
    """
    return [
        *(
            JOURNALCTL,
            "--quiet",
            "--no-pager",
            "--all",
            "--output=cat",
            f"--lines={lines}",
            f"--since=@{since}",
        ),
        *(
            f"_SYSTEMD_INVOCATION_ID={invocation}",
            "+",
            f"SYSLOG_IDENTIFIER={identifier}",
            "_TRANSPORT=stdout",
        ),
    ]


def plan_end(match: str, *, since: str) -> list[str]:
    """Return the command that prints what systemd says of the end of a run; nothing if that is not there yet.

    ``match`` says of which run, such as ``USER_UNIT=NAME``; ``since`` is in seconds. What the run itself has written
    is in the journal by then, or will be in a moment: journald reads it from another socket.
    """
    return [
        *(JOURNALCTL, "--quiet", "--no-pager", "--output=cat", "--lines=1", f"--since=@{since}", match),
        *(f"MESSAGE_ID={identity}" for identity in RUN_ENDED),
    ]


def wait_for_end(match: str, *, since: str, patience: float) -> None:
    """Wait until the journal has what ``plan_end`` looks for, at most ``patience`` seconds: it may be behind."""
    import time

    deadline = time.monotonic() + patience
    while not read_last_lines(plan_end(match, since=since)) and time.monotonic() < deadline:
        time.sleep(_POLL)


def read_last_lines(command: Sequence[str]) -> tuple[str, ...]:
    """Run a plan that ends by itself and return its lines, without those that are empty."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate((null, write_end, null))
        ]
        pid = os.posix_spawn(command[0], list(command), {"LC_ALL": "C.UTF-8"}, file_actions=actions)
    except OSError as error:
        os.close(read_end)
        raise SystemdError(f"cannot read the journal: {error.strerror}", where=command[0]) from error
    finally:
        os.close(write_end)
        os.close(null)
    with open(read_end, "rb") as pipe:
        data = pipe.read(LONGEST_TAIL)
    os.waitpid(pid, 0)
    return tuple(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())
