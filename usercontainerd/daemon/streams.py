"""Output that clients read from a pipe, such as logs: each is a child that goes when its reader does."""

from __future__ import annotations

from usercontainerd.daemon.call import LimitExceeded
from usercontainerd.daemon.children import start_into_pipe
from usercontainerd.daemon.limits import MAX_ALL_STREAMS, MAX_STREAMS, Holdings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.daemon.service import Service


class Streams:
    """The children that write to pipes of clients."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._held = Holdings("logs being read", MAX_STREAMS, MAX_ALL_STREAMS)

    @property
    def count(self) -> int:
        """How many are open."""
        return self._held.total

    async def open_output(self, sender: str, words: list[str]) -> int:
        """Run ``usercontainer WORDS…``; return the reading end of its output. Raises ``LimitExceeded``."""
        excess = self._held.find_excess(sender)
        if excess:
            raise LimitExceeded(excess)
        service = self._service
        child, reader = start_into_pipe(
            lambda pipe: service.start_command(words, stdin=service.null, stdout=pipe)
        )
        self._held.take(sender)
        stop_watching = await self._service.server.watch_client(sender, child.end)
        child.ended.add_done_callback(lambda _: self._close(sender, stop_watching))
        return reader

    def _close(self, sender: str, stop_watching: Callable[[], None]) -> None:
        stop_watching()
        self._held.give_back(sender)
        self._service.idle.touch()
