"""How often a request is tried again, and how long is waited before that."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime

from usercontainerd.base.records import dataclass

RETRIED = (429, 500, 502, 503, 504)  # statuses that may be different the next time
MAX_RETRY_AFTER = 60.0  # seconds; who is told to wait longer is told so, not kept waiting


@dataclass(frozen=True)
class Patience:
    """``tries`` in all; waits double from ``first`` up to ``longest`` seconds, each with jitter."""

    tries: int = 5
    first: float = 0.5
    longest: float = 15.0

    def plan_delay(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Return the seconds to wait after the failed ``attempt`` (from 0); None to give up.

        Jitter is between a half and the whole, so that clients which failed together do not return together.
        What the registry asks for in ``Retry-After`` is the least; beyond ``MAX_RETRY_AFTER`` there is no wait.
        """
        if attempt + 1 >= self.tries:
            return None
        delay = min(self.longest, self.first * 2.0**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
        if retry_after is None:
            return delay
        return None if retry_after > MAX_RETRY_AFTER else max(delay, retry_after)


def parse_retry_after(text: str, now: float) -> float | None:
    """Read ``Retry-After`` (RFC 9110, 10.2.3: seconds, or a date); return seconds from ``now``, None if unreadable.

    ``now`` is in seconds since the epoch.
    """
    text = text.strip()[:64]
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
