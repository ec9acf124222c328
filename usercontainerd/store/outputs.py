"""What a child of the worker gives back as a stream of bytes, seen from outside."""

from __future__ import annotations

import json
import os

from usercontainerd.base.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Self

_MAX_REPLY = 1024 * 1024


class Output:
    """A stream of bytes and, at its end, whether it is complete.

    A context manager; leaving it early ends the child. ``warnings`` is filled at the end of the stream.
    """

    def __init__(self, stream: int, reply: int, decode: Callable[[dict[str, Any]], BaseException]) -> None:
        self._stream = stream
        self._reply = reply
        self._decode = decode
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes, b"" at the end. Raises what the child raised."""
        if self._stream < 0:
            return b""
        data = os.read(self._stream, count)
        if not data:
            try:
                self._finish()
            finally:
                self.close()
        return data

    def close(self) -> None:
        """Give up on it; harmless at the end."""
        for fd in (self._stream, self._reply):
            if fd >= 0:
                os.close(fd)
        self._stream = self._reply = -1

    def _finish(self) -> None:
        data = b""
        while len(data) < _MAX_REPLY and (chunk := os.read(self._reply, 1 << 16)):
            data += chunk
        if not data:
            raise RuntimeFailure(
                "the process that reads the layer died", hint="was it killed, or out of memory?"
            )
        reply = json.loads(data)
        if "error" in reply:
            raise self._decode(reply)
        self.warnings = [str(text) for text in reply.get("warnings", ())]


class Rebuilding(Output):
    """The exact uncompressed tar archive of a layer. The reader compares its digest with the diffID."""


class ArchiveStream(Output):
    """A tar archive of a tree."""


class Change:
    """One path, absolute in the image, that a layer has added (``A``), changed (``C``) or deleted (``D``)."""

    __slots__ = ("kind", "path")

    def __init__(self, kind: str, path: bytes) -> None:
        self.kind = kind
        self.path = path


class ChangeStream(Output):
    """The changes of a layer, parents first; iterate over it."""

    def __iter__(self) -> Iterator[Change]:
        """Yield them as they come. Raises what the child raised."""
        data = b""
        while more := self.read(1 << 16):
            *whole, data = (data + more).split(b"\0")
            for record in whole:
                yield Change(chr(record[0]), record[1:])


class PathStream(Output):
    """Paths of a layer; iterate over it."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield them as they come. Raises what the child raised."""
        data = b""
        while more := self.read(1 << 16):
            *whole, data = (data + more).split(b"\0")
            yield from whole
