"""When to leave: after a while in which nobody needs the daemon. Whoever calls next has it started again."""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = 30.0  # seconds


class Idle:
    """Waits for a quiet time of ``seconds``; ``is_needed`` tells whether something still goes on."""

    def __init__(self, seconds: float, is_needed: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._is_needed = is_needed
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    def touch(self) -> None:
        """Something has happened."""
        self._last = self._loop.time()

    async def wait(self) -> None:
        """Return when nothing has happened for long enough and nobody needs us."""
        while True:
            left = self._last + self._seconds - self._loop.time()
            if left > 0:
                await asyncio.sleep(left)
            elif self._is_needed():
                self.touch()
            else:
                return
