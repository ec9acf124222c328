"""Signals by ``_signal``, the C half of Python's ``signal``: the other half builds enumerations for 4 ms."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIGALRM = 14
SIGCHLD = 17
SIGINT = 2
SIGPIPE = 13
SIGTERM = 15
AGAIN = 0.01  # seconds; by then the program is somewhere else
_SI_USER = 0  # sigaction(2): sent by kill(2)


def block_signals(numbers: Iterable[int]) -> set[int]:
    """Block signals, so that ``wait_signal`` can take them; return the former mask."""
    former: set[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, set(numbers))
    return former


def restore_mask(mask: set[int]) -> None:
    """Put back what ``block_signals`` returned."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def wait_signal(numbers: Iterable[int], timeout: float | None = None) -> tuple[int, bool]:
    """Wait for one of the blocked signals; return it, and whether another process sent it (not the kernel).

    (0, False) when ``timeout`` (seconds) passes.
    """
    wanted = set(numbers)
    received = _signal.sigwaitinfo(wanted) if timeout is None else _signal.sigtimedwait(wanted, timeout)
    return (0, False) if received is None else (received.si_signo, received.si_code == _SI_USER)


def is_ignored(number: int) -> bool:
    """Tell whether our caller had us ignore a signal, as nohup(1) does."""
    return bool(_signal.getsignal(number) == _signal.SIG_IGN)


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal to the process that ``pidfd`` refers to; False if it has ended. Raises ``OSError``."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pidfd: int) -> bool:
    """Tell whether the process that ``pidfd`` refers to exists still, if only as a zombie."""
    try:
        _signal.pidfd_send_signal(pidfd, 0)
    except OSError:
        return False
    return True


def find_process_number(pidfd: int) -> int:
    """Return the number that the process of ``pidfd`` has here; 0 or less if it has none (pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "Pid":
                return int(value)
    return 0


def catch_signals(numbers: Iterable[int]) -> int:
    """From now on, have these signals come as bytes out of the descriptor that is returned (``set_wakeup_fd``).

    But for those that our caller had us ignore.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        if not is_ignored(number):
            _signal.signal(number, lambda *_: None)
    return reader


def raise_interrupt() -> None:
    """From now on, SIGINT raises ``KeyboardInterrupt``: programs of ours begin without that, see ``bin``."""
    if _signal.getsignal(SIGINT) == _signal.SIG_DFL:
        _signal.signal(SIGINT, _signal.default_int_handler)

    def come_again() -> None:
        _signal.signal(SIGALRM, _signal.default_int_handler)
        _signal.setitimer(_signal.ITIMER_REAL, AGAIN)

    watch_lost(KeyboardInterrupt, come_again)


def watch_lost(kind: type[BaseException], come_again: Callable[[], object]) -> None:
    """Call ``come_again`` when an exception that a signal handler has raised is lost, instead of complaining of it.

    A handler runs wherever the program is just now, and from a destructor or a weak reference's callback (every
    import has one) no exception gets out.
    """
    former = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, kind):
            come_again()
        else:
            former(unraisable)

    sys.unraisablehook = hook
