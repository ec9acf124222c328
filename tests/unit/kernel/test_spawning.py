"""Programs are started with what they are meant to have, and no more."""

from __future__ import annotations

import os
import signal

from usercontainerd.kernel.spawning import spawn, wait_exit


def test_blocked_signals_wait_for_the_program() -> None:
    """One that arrives before the program has said what it makes of it does not end it."""
    reader, writer = os.pipe()
    script = "kill -s TERM $$; kill -s INT $$; trap '' TERM INT; exit 7"
    for blocked, status in ((), -signal.SIGTERM), ((signal.SIGTERM, signal.SIGINT), 7):
        pid = spawn(["/bin/sh", "-c", script], {}, stdin=reader, blocked_signals=blocked)
        assert wait_exit(pid) == status
    os.close(reader)
    os.close(writer)
