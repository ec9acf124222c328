"""What one client may take of the daemon, so that it harms no other: all limits in one place.

Each client is its unique name on the bus. Who goes over a limit gets ``LimitExceeded`` (the bus itself has limits,
too: dbus-daemon(1), ``<limit>``).
"""

from __future__ import annotations

MAX_CALLS = 64  # of one client, under way at the same time
# Of one client, in a row. A settings page of 200 containers that asks for each property by itself comes to 4,000
# calls, one that waits for each answer cannot send more than some 1,500 a second.
CALL_BURST = 4000
CALLS_A_SECOND = 500.0  # of one client, in the long run
LOGGED_REFUSALS = (3, 1 / 60)  # of one client: in a row, and a second
MAX_JOBS = 32  # running, of all clients
MAX_JOBS_OF_ONE = 8
MAX_STREAMS = 32  # logs being read, of one client
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

    def take(self, client: str, now: float) -> bool:
        """Take one token; False if there is none."""
        if now >= self._next_sweep:
            self._sweep(now)
        left = self._fill(client, now)
        if left < 1.0:
            return False
        self._left[client] = (left - 1.0, now)
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
