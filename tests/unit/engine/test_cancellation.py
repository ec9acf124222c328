"""A cancellation that gets lost comes again."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

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


# The handler runs where no exception gets out of.
LOST = """\
import os, signal, sys, time, weakref
from usercontainerd.base.errors import Cancelled
from usercontainerd.engine.cancellation import cancel_on
from usercontainerd.kernel.signals import raise_interrupt

class Dying:
    def __del__(self):
        send()

class Watched:
    pass

def send():
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass

number = int(sys.argv[1])
raise_interrupt()
cancel_on((signal.SIGTERM,), "cancelled")
try:
    if sys.argv[2] == "destructor":
        one = Dying()
    else:
        one = Watched()
        watching = weakref.ref(one, lambda _: send())
    del one
    time.sleep(60)
except (Cancelled, KeyboardInterrupt) as error:
    os.write(1, type(error).__name__.encode())
os._exit(0)
"""


@pytest.mark.parametrize("place", ["destructor", "callback"])
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, "Cancelled"), (signal.SIGINT, "KeyboardInterrupt")]
)
def test_lost_exception_comes_again(place: str, number: int, error: str) -> None:
    command = [sys.executable, "-c", LOST, str(int(number)), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (error, "", 0)
