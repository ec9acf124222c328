"""Letting a signal end what is being done, for certain.

An exception that a signal handler raises can get lost: an extension module that is being imported may clear it, and
from a destructor it does not get out. So it is raised again, until the process has ended.
"""

from __future__ import annotations

import signal

from usercontainerd.base.errors import Cancelled
from usercontainerd.kernel.signals import AGAIN, watch_lost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

REPEAT = 2.0  # seconds; what is left to do after a cancellation takes less


def cancel_on(numbers: Iterable[int], what: str, *, exit_status: int | None = None) -> None:
    """Have each of the signals raise ``Cancelled``; ``exit_status`` if not the usual one."""

    def cancel(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, cancel)
        signal.setitimer(signal.ITIMER_REAL, REPEAT, REPEAT)
        error = Cancelled(what)
        if exit_status is not None:
            error.exit_status = exit_status
        raise error

    watch_lost(Cancelled, lambda: signal.setitimer(signal.ITIMER_REAL, AGAIN, REPEAT))
    for number in numbers:
        signal.signal(number, cancel)


def end_cancellation(numbers: Iterable[int]) -> None:
    """All is done, or said: signals, and what repeats one, no longer matter while the interpreter goes down."""
    for number in (*numbers, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
