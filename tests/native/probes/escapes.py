"""Runs inside a container, tries to get out of it, and writes down how each attempt ended, as JSON.

Each attempt is a function that raises ``OSError`` when it is refused and returns a text when it got somewhere. It
runs in a child of its own, so that a half success cannot help the next. ``main(OUTPUT, SETTINGS)``: SETTINGS is JSON
with what the host knows: a process (``victim``), a port (``port``), an abstract socket (``abstract``), a file
(``secret``), a key (``key``).
"""

from __future__ import annotations

import errno
import json
import os
import signal

from . import host_attempts, kernel_attempts, namespace_attempts, privilege_attempts
from .attempts import ATTEMPTS, Attempt, Settings

__all__ = ["ATTEMPTS", "host_attempts", "kernel_attempts", "namespace_attempts", "privilege_attempts"]


def run_attempt(function: Attempt, settings: Settings) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            outcome = "ESCAPED: " + function(settings)
        except OSError as error:
            outcome = f"refused: {errno.errorcode.get(error.errno or 0, str(error))}"
        except BaseException as error:
            outcome = f"broken: {error!r}"
        os.write(writer, outcome.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        outcome = file.read().decode()
    status = os.waitpid(pid, 0)[1]
    return outcome or f"refused: signal {os.WTERMSIG(status)}"


def main(output: str, settings: str) -> None:
    known = json.loads(settings)
    outcomes = {name: run_attempt(function, known) for name, function in ATTEMPTS.items()}
    with open(output, "w", encoding="utf-8") as file:
        json.dump(outcomes, file)
