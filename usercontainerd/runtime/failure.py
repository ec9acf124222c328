"""What crun says when it fails, as errors with docker's exit statuses."""

from __future__ import annotations

import errno
import os

from usercontainerd.base.errors import CommandNotExecutable, CommandNotFound, HostError, RuntimeFailure


def read_log_tail(path: str, limit: int = 4096) -> str:
    """The end of a log file; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def explain_crun_failure(log: str, name: str) -> RuntimeFailure:
    """Turn crun's own words into an error: 127 for a command that does not exist, 126 for one that cannot run."""
    message = log.splitlines()[-1] if log else "it failed without saying why"
    if "executable file" in message and "not found" in message:
        return CommandNotFound(message, where=name, hint="check command and entrypoint")
    if (
        "not executable" in message
        or "is not a regular file" in message
        or ("exec" in message and "Permission denied" in message)
        or ("open executable" in message and "Operation not permitted" in message)  # a directory, to crun 1.8
    ):
        return CommandNotExecutable(message, where=name, hint="is it executable, and of this architecture?")
    return RuntimeFailure(f"crun: {message}", where=name)


def explain_os_error(error: OSError, name: str) -> HostError:
    """A system call of the launcher itself failed; ``EAGAIN`` is fork(2) under the unit's own limit."""
    hint = None
    if error.errno == errno.EAGAIN:
        hint = "raise pids in [resources], or TasksMax=: a start needs about 10 processes for a moment"
    return HostError(error.strerror or str(error), where=error.filename or name, hint=hint)
