"""Inflating and hashing in threads of their own while the main thread unpacks.

zlib and hashlib let go of the GIL while they work, so on two processors the three steps overlap. The queues
are bounded: however slow the disk is, only a few pieces are held in memory.
"""

from __future__ import annotations

import queue
import threading

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.oci.digest import Digest, new_hash
from usercontainerd.store.inflate import Codecs, inflate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEPTH = 8  # pieces of 256 KiB that may wait between two steps


class Bounds:
    """How much may come out of a layer: at most ``size`` bytes, and ``ratio`` times what went in once past
    ``free``.

    gzip reaches 1032:1 at best; real layers stay below 20:1, so the ratio applies only to what is large.
    """

    __slots__ = ("free", "ratio", "size")

    def __init__(self, *, size: int = 1 << 40, ratio: int = 200, free: int = 1 << 30) -> None:
        self.size = size
        self.ratio = ratio
        self.free = free

    def check(self, consumed: int, produced: int) -> None:
        """Raise ``InvalidFormat`` if ``produced`` bytes are too many."""
        if produced > self.size:
            raise InvalidFormat(f"the layer unpacks to more than the {self.size} bytes allowed")
        if produced > self.free and produced > consumed * self.ratio:
            raise InvalidFormat(
                f"the layer unpacks to more than {self.ratio} times its size: it looks like a decompression bomb"
            )


class LayerStream:
    """The uncompressed bytes of a layer as the tar reader takes them; afterwards ``diff_id`` and ``size``."""

    def __init__(
        self, read: Callable[[int], bytes], codecs: Codecs, bounds: Bounds, *, algorithm: str = "sha256"
    ) -> None:
        self._read = read
        self._codecs = codecs
        self._bounds = bounds
        self._algorithm = algorithm
        self._hash = new_hash(algorithm)
        self._inflated: queue.Queue[bytes | BaseException | None] = queue.Queue(DEPTH)
        self._hashed: queue.Queue[bytes | BaseException | None] = queue.Queue(DEPTH)
        self._piece = b""
        self._at = 0
        self._ended = False
        self._consumed = 0
        self.size = 0
        self._threads = [
            threading.Thread(target=self._inflate, name="inflate", daemon=True),
            threading.Thread(target=self._digest, name="digest", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _counting_read(self, count: int) -> bytes:
        data = self._read(count)
        self._consumed += len(data)
        return data

    def _inflate(self) -> None:
        produced = 0
        try:
            for piece in inflate(self._counting_read, self._codecs):
                produced += len(piece)
                self._bounds.check(self._consumed, produced)
                self._inflated.put(piece)
            self._inflated.put(None)
        except BaseException as error:  # goes to the thread that waits for data
            self._inflated.put(error)

    def _digest(self) -> None:
        while isinstance(piece := self._inflated.get(), bytes):
            self._hash.update(piece)
            self.size += len(piece)
            self._hashed.put(piece)
        self._hashed.put(piece)

    def _advance(self) -> bool:
        if self._ended:
            return False
        piece = self._hashed.get()
        if isinstance(piece, bytes):
            self._piece, self._at = piece, 0
            return True
        self._ended = True
        self._piece, self._at = b"", 0
        if piece is not None:
            raise piece
        return False

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer only at the end."""
        at = self._at
        data = self._piece[at : at + count]
        self._at = at + len(data)
        while len(data) < count and self._advance():
            more = self._piece[: count - len(data)]
            self._at = len(more)
            data += more
        return data

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Yield the next ``count`` bytes in pieces as they come; fewer only at the end."""
        while count:
            available = len(self._piece) - self._at
            if not available:
                if not self._advance():
                    return
                continue
            length = min(available, count)
            view = memoryview(self._piece)[self._at : self._at + length]
            self._at += length
            count -= length
            yield view

    def finish(self, record: Callable[[bytes], None] | None = None) -> Digest:
        """Read to the end (what follows the archive counts too, and goes to ``record``); return the diffID."""
        rest = self._piece[self._at :]
        while True:
            if record is not None and rest:
                record(rest)
            if not self._advance():
                break
            rest = self._piece
        for thread in self._threads:
            thread.join()
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def abandon(self) -> None:
        """Let the threads run out without using what they produce.

        The source must come to an end by itself.
        """
        while not self._ended:
            try:
                self._advance()
            except BaseException:  # the first error was reported already
                return
