"""Which calls of a client are read and answered: the limits of one door, and what each client takes of them now."""

from __future__ import annotations

from usercontainerd.daemon.limits import (
    BYTES_A_TOKEN,
    CALLS_A_SECOND,
    LOGGED_REFUSALS,
    MAX_CALL_BYTES,
    MAX_CALLS,
    MAX_FDS,
    MAX_FDS_OF_CALL,
    MAX_FDS_OF_ONE,
    MAX_WEIGHT,
    MAX_WEIGHT_OF_ONE,
    Allowances,
    Holdings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.daemon.call import Call


class Admission:
    """``clock`` is in seconds and never goes back. What judges returns why a call is refused, "" if it is not."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._allowances = Allowances()
        self._refusals = Allowances(*LOGGED_REFUSALS)
        self._calls: dict[str, int] = {}
        self._fds = Holdings("file descriptors in calls", MAX_FDS_OF_ONE, MAX_FDS)
        self._weights = Holdings("bytes in calls", MAX_WEIGHT_OF_ONE, MAX_WEIGHT)

    def judge_size(self, client: str, size: int) -> str:
        """Judge a call of ``size`` bytes that has not been read yet."""
        if size > MAX_CALL_BYTES:
            return f"a call of {size} bytes; {MAX_CALL_BYTES} are the most"
        if self._calls.get(client, 0) >= MAX_CALLS:
            return f"more than {MAX_CALLS} calls are under way"
        if not self._allowances.take(client, self._clock(), 1 + size // BYTES_A_TOKEN):
            return (
                f"more calls than {CALLS_A_SECOND:g} a second in the long run (a long one counts as several)"
            )
        return ""

    def judge(self, call: Call) -> str:
        """Judge a call that has been read."""
        if call.fd_count > MAX_FDS_OF_CALL:
            return f"more than {MAX_FDS_OF_CALL} file descriptors in a call"
        return self._fds.find_excess(call.sender, call.fd_count) or self._weights.find_excess(
            call.sender, call.weight
        )

    def enter(self, call: Call) -> None:
        """A call is being answered now."""
        self._calls[call.sender] = self._calls.get(call.sender, 0) + 1
        self._fds.take(call.sender, call.fd_count)
        self._weights.take(call.sender, call.weight)

    def leave(self, call: Call) -> None:
        """It has been; its descriptors are not closed yet."""
        self._weights.give_back(call.sender, call.weight)
        self._fds.give_back(call.sender, call.fd_count)
        self._calls[call.sender] -= 1
        if not self._calls[call.sender]:
            del self._calls[call.sender]

    def may_log(self, client: str) -> bool:
        """Tell whether the journal may have another refusal of this client: not more than somebody can read."""
        return self._refusals.take(client, self._clock())

    def forget(self, client: str) -> None:
        """The client has left the bus."""
        self._allowances.drop(client)
        self._refusals.drop(client)
