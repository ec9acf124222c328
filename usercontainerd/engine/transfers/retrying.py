"""Trying a pull again as often as its caller says, beside the patience that each request has.

What came goes on where it stopped. What the registry answered for good (no such image, no access, another digest) is
not asked again.
"""

from __future__ import annotations

import time

from usercontainerd.base.errors import RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")

_LONGEST = 60.0  # seconds


class Retry:
    """``times`` more attempts; ``delay`` seconds before each, None: from one second on, twice as long each time."""

    __slots__ = ("delay", "times")

    def __init__(self, times: int, delay: float | None = None) -> None:
        self.times = times
        self.delay = delay

    def run(self, attempt: Callable[[], Result], notice: Callable[[str], object]) -> Result:
        """Return what ``attempt`` returns in the end, or raise what the last has raised."""
        for number in range(self.times):
            try:
                return attempt()
            except RegistryError as error:
                delay = min(_LONGEST, 2.0**number) if self.delay is None else self.delay
                notice(f"Trying again in {delay:g} s: {error}")
                time.sleep(delay)
        return attempt()
