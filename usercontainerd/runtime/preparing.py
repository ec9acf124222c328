"""Running ``prepare`` from within a unit's start: as a transient unit of its own, by systemd-run(1).

Not as a child: a pull needs more memory than the container may be allowed, and would be killed by the limit that is
the container's. The transient unit is bound to the container's, so that stopping that one cancels the pull; its
progress comes back on a pipe, since systemd takes notifications of a unit only from that unit's processes.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import RuntimeFailure
from usercontainerd.kernel.notification import write_line
from usercontainerd.kernel.spawning import spawn, wait_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYSTEMD_RUN = "/usr/bin/systemd-run"
ERROR = "ERROR="
NOTICE = "NOTICE="  # a line for the journal
END = b"\0"
# What systemd gives to one unit and must not be handed to another (systemd.exec(5)).
_OWN = (
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MANAGERPID",
    "MAINPID",
    "WATCHDOG_",
    "LISTEN_",
    "MEMORY_PRESSURE_",
)


def plan_prepare(unit: str, name: str, program: str, inherited: dict[str, str]) -> list[str]:
    """The systemd-run command; variables are copied by name, so that no value shows in the process list."""
    names = sorted(key for key in _without_own(inherited) if key.isidentifier())
    return [
        SYSTEMD_RUN,
        "--user",
        "--quiet",
        "--collect",
        "--wait",
        "--pipe",
        f"--description=Preparing container {name}",
        "--slice=container.slice",
        f"--property=BindsTo={unit}",
        *(f"--setenv={key}" for key in names),
        "--",
        program,
        name,
        inherited.get("NOTIFY_SOCKET", ""),
    ]


def _without_own(inherited: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in inherited.items() if not key.startswith(_OWN)}


def run_prepare(
    unit: str, name: str, program: str, inherited: dict[str, str], notify: Callable[[str], None]
) -> int:
    """Run ``prepare`` to its end and return its status; what it reports goes to ``notify`` and standard error."""
    read_end, write_end = os.pipe()
    try:
        # Not with NOTIFY_SOCKET: systemd-run says READY=1 when its own unit runs.
        command = plan_prepare(unit, name, program, inherited)
        pid = spawn(command, _without_own(inherited), stdout=write_end)
    finally:
        os.close(write_end)
    reported = False
    for message in _read_messages(read_end):
        if message.startswith(ERROR):
            reported = True
            text = message.removeprefix(ERROR)
            write_line(text, 3, inherited)
            notify(f"STATUS={text}")
        elif message.startswith(NOTICE):
            # From here: what prepare writes itself, the journal has under the transient unit.
            write_line(message.removeprefix(NOTICE), 5, inherited)
        else:
            notify(message)
    os.close(read_end)
    status = wait_exit(pid)
    if status != 0 and not reported:
        raise RuntimeFailure(
            f"prepare ended without saying why (status {status})",
            where=name,
            hint="see `journalctl --user -e`; systemd-run(1) runs it",
        )
    return status


def _read_messages(fd: int) -> Iterator[str]:
    rest = b""
    while chunk := os.read(fd, 65536):
        *messages, rest = (rest + chunk).split(END)
        for message in messages:
            yield message.decode("utf-8", "replace")


def render_message(text: str) -> bytes:
    """What ``prepare`` writes for one message: lines of ``KEY=value``."""
    return text.replace("\0", "").encode("utf-8", "replace") + END
