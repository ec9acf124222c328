"""Output that clients read from a pipe, such as logs: each is a child that goes when its reader does."""

from __future__ import annotations

import os

from usercontainerd.daemon.call import LimitExceeded
from usercontainerd.daemon.children import Child
from usercontainerd.daemon.limits import MAX_STREAMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.daemon.service import Service


class Streams:
    """The children that write to pipes of clients."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: dict[Child, str] = {}

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    async def open_output(self, sender: str, words: list[str]) -> int:
        """Run ``usercontainer WORDS…``; return the reading end of its output. Raises ``LimitExceeded``."""
        if sum(1 for owner in self._open.values() if owner == sender) >= MAX_STREAMS:
            raise LimitExceeded(f"more than {MAX_STREAMS} logs are being read")
        reader, writer = os.pipe()
        try:
            child = self._service.start_command(words, stdin=self._service.null, stdout=writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._open[child] = sender
        stop_watching = await self._service.server.watch_client(sender, child.end)
        child.ended.add_done_callback(lambda _: self._close(child, stop_watching))
        return reader

    def _close(self, child: Child, stop_watching: Callable[[], None]) -> None:
        stop_watching()
        self._open.pop(child, None)
        self._service.idle.touch()
