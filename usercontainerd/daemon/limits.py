"""What one client may take of the daemon, so that it harms no other: all limits in one place.

Each client is its unique name on the bus. Who goes over a limit gets ``LimitExceeded`` (the bus itself has limits,
too: dbus-daemon(1), ``<limit>``). Calls that are too long are never in memory, and each that is takes of its client's
allowance by its length: what is decided before a call is read (``admission``) needs its header only.

A daemon that has no descriptors left serves nobody. Jobs and programs hold two each, logs one, a message that is
being read 253 at most (the kernel's SCM_MAX_FD), calls ``MAX_FDS`` at each of the two doors: 900 in all. Threads, the
board and answers on their way need some more, so the daemon has ``WANTED_FDS`` (see ``raise_fd_limit``).
"""

from __future__ import annotations

import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CALLS = 64  # of one client, under way at the same time
# Of one client, in a row. A settings page of 200 containers that asks for each property by itself comes to 4,000
# calls, one that waits for each answer cannot send more than some 1,500 a second.
CALL_BURST = 4000
CALLS_A_SECOND = 500.0  # of one client, in the long run
# Bytes of one call. The longest that is sensible is a program's arguments, which the kernel takes 2 MiB of with the
# environment (execve(2)); definitions and settings have some kilobytes.
MAX_CALL_BYTES = 1024 * 1024
BYTES_A_TOKEN = 512  # of a call's length: a longer one counts as several
MAX_WEIGHT_OF_ONE = 16 * 1024 * 1024  # bytes that the calls of one client occupy, about
MAX_WEIGHT = 64 * 1024 * 1024  # those of all, at each of the two doors
LOGGED_REFUSALS = (3, 1 / 60)  # of one client: in a row, and a second
MAX_JOBS = 32  # running, of all clients
MAX_JOBS_OF_ONE = 8
MAX_ENDED_JOBS = 256  # that can still be read, of all clients; then the oldest go before their time
MAX_ENDED_JOBS_OF_ONE = 64
MAX_PROGRAMS = 32  # short ones that a call waits for (a login, doctor), of all clients
MAX_PROGRAMS_OF_ONE = 4
MAX_STREAMS = 32  # logs being read, of one client
MAX_ALL_STREAMS = 128  # of all
MAX_FDS_OF_CALL = 16  # that one call uses; what its arguments do not name is closed unseen
MAX_FDS_OF_ONE = 64  # that calls of one client hold at the same time
MAX_FDS = 192  # of all
WANTED_FDS = 4096
MAX_WATCHERS = 64  # sandboxed applications that are told of changes


class Allowances:
    """How many calls each client may still make: a bucket of ``burst`` tokens, ``rate`` more of them a second.

    A full bucket is as good as none, so what a client leaves behind is gone ``burst / rate`` seconds later. ``now``
    is in seconds, of any clock that never goes back.
    """

    def __init__(self, burst: int = CALL_BURST, rate: float = CALLS_A_SECOND) -> None:
        self._burst = burst
        self._rate = rate
        self._left: dict[str, tuple[float, float]] = {}
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._left)

    def take(self, client: str, now: float, tokens: int = 1) -> bool:
        """Take so many tokens; False if there are fewer, and none is taken."""
        if now >= self._next_sweep:
            self._sweep(now)
        left = self._fill(client, now)
        if left < tokens:
            return False
        self._left[client] = (left - tokens, now)
        return True

    def drop(self, client: str) -> None:
        """The client has left."""
        self._left.pop(client, None)

    def _fill(self, client: str, now: float) -> float:
        left, since = self._left.get(client, (float(self._burst), now))
        return min(float(self._burst), left + (now - since) * self._rate)

    def _sweep(self, now: float) -> None:
        for client in [name for name in self._left if self._fill(name, now) >= self._burst]:
            del self._left[client]
        self._next_sweep = now + self._burst / self._rate


class Holdings:
    """How many of something each client holds now: at most ``of_one`` each and ``of_all`` together."""

    def __init__(self, what: str, of_one: int, of_all: int) -> None:
        self._what = what
        self._of_one = of_one
        self._of_all = of_all
        self._held: dict[str, int] = {}
        self.total = 0

    def find_excess(self, client: str, count: int = 1) -> str:
        """Why this client may not have ``count`` more, "" if it may."""
        if self._held.get(client, 0) + count > self._of_one:
            return f"more than {self._of_one} {self._what} of one client"
        if self.total + count > self._of_all:
            return f"more than {self._of_all} {self._what}"
        return ""

    def take(self, client: str, count: int = 1) -> None:
        """It has ``count`` more."""
        if count:
            self._held[client] = self._held.get(client, 0) + count
            self.total += count

    def give_back(self, client: str, count: int = 1) -> None:
        """It has ``count`` fewer."""
        if count:
            self._held[client] -= count
            self.total -= count
            if not self._held[client]:
                del self._held[client]


def choose_surplus(owners: Iterable[tuple[str, str]], of_one: int, of_all: int) -> list[str]:
    """Of ``(name, owner)``, the oldest first, the names that are to go for the limits to be kept. Pure."""
    known = list(owners)
    held: dict[str, int] = {}
    total = 0
    gone = []
    for name, owner in reversed(known):
        if held.get(owner, 0) >= of_one or total >= of_all:
            gone.append(name)
        else:
            held[owner] = held.get(owner, 0) + 1
            total += 1
    return gone[::-1]


def raise_fd_limit(wanted: int = WANTED_FDS) -> tuple[int, int]:
    """Allow this process ``wanted`` descriptors, if the hard limit lets it; return what its children are to have.

    systemd leaves the soft limit at 1024 for the sake of select(2), which nothing here uses. Programs that we run may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return soft, hard
