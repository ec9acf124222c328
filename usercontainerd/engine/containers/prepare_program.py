"""The program ``prepare NAME``: runs for a unit's start, tells how far a pull is, and can be stopped.

While bytes arrive the start timeout is put off (``EXTEND_TIMEOUT_USEC=``, sd_notify(3)), so that a slow line is no
failure; a line that is silent for a minute is.
"""

from __future__ import annotations

import os
import sys
import time

from usercontainerd.base.errors import Cancelled, HostError, UsercontainerError
from usercontainerd.base.programs import Programs
from usercontainerd.base.sizes import format_size
from usercontainerd.engine.cancellation import cancel_on, end_cancellation
from usercontainerd.engine.containers.preparation import prepare_container
from usercontainerd.engine.context import build_context
from usercontainerd.engine.registries.endpoints import Conversation
from usercontainerd.kernel.notification import one_line
from usercontainerd.runtime.preparing import ERROR, NOTICE, render_message

SILENCE_LIMIT = 60  # seconds without a byte
INTERVAL = 0.25  # seconds between two reports


class UnitProgress:
    """Reports a pull as the unit's status text: messages of sd_notify(3) that the launcher passes on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._items: dict[str, tuple[int, int]] = {}
        self._last = 0.0

    def __call__(self, phase: str, item: str, done: int, total: int) -> None:
        """Take one report: ``done`` of ``total`` bytes of ``item``; total 0 is unknown."""
        if phase == "download":
            # What an earlier pull had left may turn out to be damaged: nobody wants to see it go backwards.
            self._items[item] = (max(done, self._items.get(item, (0, 0))[0]), total)
        now = time.monotonic()
        if now - self._last < INTERVAL:
            return
        self._last = now
        done = sum(each for each, _ in self._items.values())
        total = sum(each for _, each in self._items.values())
        share = f": {format_size(done)} of {format_size(total)}" if total else ""
        text = one_line(f"Pulling the image of {self.name} ({phase}){share}")
        os.write(1, render_message(f"EXTEND_TIMEOUT_USEC={SILENCE_LIMIT * 1_000_000}\nSTATUS={text}"))


def main(arguments: list[str], environment: dict[str, str], programs: str) -> int:
    """``prepare NAME [NOTIFY-SOCKET]``: the socket is the unit's, for a container that reports READY itself."""
    import signal

    if not arguments:
        sys.stderr.write("usage: prepare NAME [NOTIFY-SOCKET]\n")
        return 125
    # SIGPIPE: the launcher is gone when its unit was stopped, and then nobody wants the image any more.
    ends = (signal.SIGTERM, signal.SIGPIPE)
    cancel_on(ends, "stopped while the image was being pulled")
    try:
        return _prepare(arguments, environment, programs, ends)
    except Cancelled as error:
        return error.exit_status  # it came after the last word


def _prepare(arguments: list[str], environment: dict[str, str], programs: str, ends: tuple[int, ...]) -> int:
    try:
        context = build_context(environment, Programs(programs), os.getuid(), os.getgid())
        prepare_container(
            context,
            arguments[0],
            progress=UnitProgress(arguments[0]),
            talk=Conversation(notice=_note),
            notify_socket=arguments[1] if len(arguments) > 1 else None,
        )
    except UsercontainerError as error:
        return _report(error)
    except OSError as error:
        return _report(HostError(error.strerror or str(error), where=error.filename or arguments[0]))
    finally:
        end_cancellation(ends)
    return 0


def _note(text: str) -> None:
    os.write(1, render_message(f"{NOTICE}{one_line(text, 4000)}"))


def _report(error: UsercontainerError) -> int:
    try:
        os.write(1, render_message(f"{ERROR}{one_line(str(error), 4000)}"))
    except (Cancelled, BrokenPipeError):
        pass  # the launcher is gone, and nobody waits for our words
    return error.exit_status
