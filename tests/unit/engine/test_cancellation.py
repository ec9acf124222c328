"""A cancellation that gets lost comes again."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import os, signal, time
    from usercontainerd.base.errors import Cancelled
    from usercontainerd.engine import cancellation
    cancellation.REPEAT = 0.05
    cancellation.cancel_on((signal.SIGTERM,), "stopped", exit_status=143)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    except Cancelled:
        pass  # lost
    try:
        time.sleep(30)
    except Cancelled as error:
        raise SystemExit(error.exit_status)
    """
)


def test_it_is_raised_until_the_end() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False, timeout=60).returncode == 143


def test_after_the_end_it_is_not_raised() -> None:
    """Not while the interpreter waits for its threads, where nobody would catch it."""
    program = PROGRAM.rpartition("try:")[0] + textwrap.dedent(
        """
        cancellation.end_cancellation((signal.SIGTERM,))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=False, timeout=60, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
