"""One layer on its way from a source to the worker, in a thread of its own.

The thread only moves bytes: it never touches the store's names, and tells the thread that started it by messages
what has become of it. Its descriptors are its own: it closes them itself, so that one that hangs in a read of a
silent line can be left behind.
"""

from __future__ import annotations

import threading
import time

from usercontainerd.base.errors import Cancelled, RegistryError
from usercontainerd.oci.digest import new_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queue import SimpleQueue

    from usercontainerd.engine.transfers.sources import ImageSource, ResumableSource
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.store.partial import PartialBlob
    from usercontainerd.store.worker import Unpacked, Unpacking

INTERVAL = 0.1  # seconds between two reports of how far it is


class Message:
    """What a transfer reports: bytes that have come, then ``sent``, then ``unpacked`` or ``error``."""

    __slots__ = ("done", "error", "sent", "transfer", "unpacked")

    def __init__(
        self,
        transfer: Transfer,
        *,
        done: int = 0,
        sent: bool = False,
        unpacked: Unpacked | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.transfer = transfer
        self.done = done
        self.sent = sent
        self.unpacked = unpacked
        self.error = error


class Transfer:
    """Starts to fetch at once; needs ``supply`` before it can get rid of what comes.

    ``partial`` takes the bytes too. With what it holds the transfer begins, if the source can give the rest alone;
    ``resumed`` tells that. It is the caller's again once the layer is unpacked.
    """

    def __init__(
        self,
        source: ImageSource,
        blob: Descriptor,
        diff_id: Digest,
        messages: SimpleQueue[Message],
        *,
        partial: PartialBlob | None = None,
    ) -> None:
        self.blob = blob
        self.diff_id = diff_id
        self.directory = ""
        self.partial = partial
        self.resumed = False
        self._source = source
        self._messages = messages
        self._supplied = threading.Event()
        self._stopped = False
        self._broken = False
        self._unpacking: Unpacking | None = None
        self._reported = 0.0
        self._thread = threading.Thread(target=self._run, name=f"fetch {blob.digest.hex[:12]}", daemon=True)
        self._thread.start()

    def supply(self, directory: str, unpacking: Unpacking) -> None:
        """Say where the bytes go; ``directory`` is the layer's in the stage."""
        self.directory = directory
        self._unpacking = unpacking
        self._supplied.set()

    def stop(self) -> None:
        """Let it end at the next piece; does not wait."""
        self._stopped = True
        self._supplied.set()

    def join(self, seconds: float) -> None:
        """Wait for its end, not longer than ``seconds``."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return
        if self._unpacking is not None:
            self._unpacking.close()  # supplied when it had failed already
        if self.partial is not None:
            self.partial.close()  # done, but nobody has taken it

    # In the thread

    def _run(self) -> None:
        done = False
        try:
            self._copy()
            self._supplied.wait()
            if self._stopped or self._unpacking is None:
                return
            self._unpacking.end_stream()
            self._messages.put(Message(self, sent=True))
            unpacked = self._unpacking.finish()
            done = True
            self._messages.put(Message(self, unpacked=unpacked))
        except BaseException as error:  # goes to the thread that waits for messages
            if isinstance(error, RegistryError) and self.blob.urls and error.hint is None:
                error.hint = (
                    "the layer is one that its maker gives away at another address, which is not asked"
                )
            if self.partial is not None and not isinstance(error, (RegistryError, Cancelled)):
                self.partial.discard()  # it is complete, and not good
            self._messages.put(Message(self, error=error))
        finally:
            if self.partial is not None and not done:
                self.partial.close()
            if self._supplied.is_set() and self._unpacking is not None:
                self._unpacking.close()

    def _copy(self) -> None:
        partial = self.partial
        if partial is not None and partial.size:
            resumable = find_resumable(self._source)
            if resumable is not None and partial.size <= self.blob.size:
                self.resumed = True
                state, start = new_hash(self.blob.digest.algorithm), 0
                for piece in partial.pieces():
                    state.update(piece)
                    self._send(piece)
                    start += len(piece)
                    self._report(start)
                resumable.copy_blob(self.blob, self._write, self._report, start=start, state=state)
                return
            partial.restart()
        self._source.copy_blob(self.blob, self._write, self._report)

    def _write(self, data: bytes) -> None:
        if self.partial is not None:
            self.partial.append(data)
        self._send(data)

    def _send(self, data: bytes) -> None:
        """Hand one piece to the worker; if that gave up, let the rest pass.

        A damaged blob often stops the unpacking before its digest is known to be wrong, and then the digest is
        what the user has to hear about.
        """
        self._supplied.wait()
        if self._stopped or self._unpacking is None:
            raise Cancelled("the pull has ended")
        if not self._broken:
            try:
                self._unpacking.write(data)
            except BrokenPipeError:
                self._broken = True

    def _report(self, done: int) -> None:
        now = time.monotonic()
        if now - self._reported >= INTERVAL or done == self.blob.size:
            self._reported = now
            self._messages.put(Message(self, done=done))


def find_resumable(source: ImageSource) -> ResumableSource | None:
    """Return the source if it can give a blob from the middle on."""
    return source if getattr(source, "resumable", False) else None  # type: ignore[return-value]
