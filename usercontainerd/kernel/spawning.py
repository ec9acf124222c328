"""Running a program without importing ``subprocess`` (15 ms): posix_spawn(3) and a few file actions."""

from __future__ import annotations

import posix as os

from usercontainerd.base.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    reset_signals: Sequence[int] = (),
    blocked_signals: Sequence[int] = (),
) -> int:
    """Start ``arguments[0]`` (an absolute path) and return its process ID; descriptors replace 0, 1 and 2.

    Everything else that is open here must be close-on-exec, as Python's own descriptors are.
    ``blocked_signals`` wait, for the program, until it says what it makes of them.
    """
    actions = []
    for target, fd in enumerate((stdin, stdout, stderr)):
        if fd is not None:
            actions.append((os.POSIX_SPAWN_DUP2, fd, target))
    try:
        return os.posix_spawn(
            arguments[0],
            list(arguments),
            environment,
            file_actions=actions,
            setsigmask=blocked_signals,
            setsigdef=reset_signals,
        )
    except OSError as error:
        raise HostError(f"cannot run: {error.strerror}", where=arguments[0]) from error


def wait_exit(pid: int) -> int:
    """Wait for a child; return its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
