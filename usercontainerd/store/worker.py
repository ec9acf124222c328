"""The half of the worker that stays outside.

Starts ``unpack-layer`` and gives it orders (see ``worker_process``).
"""

from __future__ import annotations

import json
import os
import socket

from usercontainerd.base.errors import HostError, RuntimeFailure, UsercontainerError, make_error
from usercontainerd.kernel.signals import SIGINT, SIGTERM
from usercontainerd.kernel.spawning import spawn
from usercontainerd.oci.digest import Digest, is_digest
from usercontainerd.store.outputs import ArchiveStream, ChangeStream, Output, PathStream, Rebuilding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import TypeVar

    from usercontainerd.kernel.idmap import IdMap

    _Stream = TypeVar("_Stream", bound=Output)

_PIPE_SIZE = 1024 * 1024
_F_SETPIPE_SZ = 1031
_NAMES_AT_ONCE = 100


class UnpackLimits:
    """How large one layer may become: bytes, bytes for each compressed byte, entries."""

    __slots__ = ("entries", "ratio", "size")

    def __init__(self, *, size: int = 1 << 40, ratio: int = 200, entries: int = 4_000_000) -> None:
        self.size = size
        self.ratio = ratio
        self.entries = entries


class Unpacked:
    """What an unpacked layer is: its diffID, entries, bytes of file content, and what had to be left out.

    ``needs_blob`` says that its archive cannot be made again from its files: the compressed blob must be kept.
    ``links`` counts the hard links to files of lower layers, which ``Worker.resolve_links`` has yet to make.
    """

    __slots__ = ("diff_id", "entries", "links", "needs_blob", "size", "tar_size", "warnings")

    def __init__(self, reply: dict[str, object]) -> None:
        diff_id = str(reply["diff_id"])
        if not is_digest(diff_id):
            raise RuntimeFailure("the unpacking process gave a strange answer")
        self.diff_id = Digest(diff_id)
        self.entries = int(str(reply["entries"]))
        self.size = int(str(reply["size"]))
        self.tar_size = int(str(reply["tar_size"]))
        self.needs_blob = bool(reply["needs_blob"])
        self.links = int(str(reply["links"]))
        warnings = reply["warnings"]
        self.warnings = [str(w) for w in warnings] if isinstance(warnings, list) else []


class Unpacking:
    """A layer being unpacked: write the compressed bytes, then ask for the result."""

    def __init__(self, stream: int, reply: int) -> None:
        self._stream = stream
        self._reply = reply

    def write(self, data: bytes) -> None:
        """Hand over compressed bytes.

        Waits while the unpacking is behind. Raises ``BrokenPipeError`` if it ended.
        """
        view = memoryview(data)
        while view:
            view = view[os.write(self._stream, view) :]

    def finish(self) -> Unpacked:
        """Say that all bytes were written and wait for the result; raises what the unpacking raised."""
        self.end_stream()
        data = b""
        while chunk := os.read(self._reply, 1 << 16):
            data += chunk
        self.close()
        if not data:
            raise RuntimeFailure("the unpacking process died", hint="was it killed, or out of memory?")
        return Unpacked(_parse_reply(data))

    def end_stream(self) -> None:
        """Say that all bytes were written."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1

    def close(self) -> None:
        """Give up on it; harmless after ``finish``."""
        self.end_stream()
        if self._reply >= 0:
            os.close(self._reply)
            self._reply = -1


def _parse_reply(data: bytes) -> dict[str, object]:
    """Return what the process answered; raise it if it is an error."""
    reply = json.loads(data)
    if "error" in reply:
        raise make_error(reply)
    return dict(reply)


class Worker:
    """One process in a user namespace of its own, for as long as the ``with`` block lasts.

    It starts at once and works through its start-up while the caller does other things; the first order
    waits for it.
    """

    def __init__(self, program: str, id_map: IdMap, *, user: str, uid: int, gid: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection = ours
        self._ready = False
        try:
            self._pid = spawn(
                [program, id_map.render(), user, str(uid), str(gid)],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
                stdin=theirs.fileno(),
                blocked_signals=(
                    SIGINT,
                    SIGTERM,
                ),  # until it ignores them: it must not end while it is being loaded
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # It deletes what was not finished. After a failure nobody needs to wait for that.
        self.close(wait=kind is None or issubclass(kind, UsercontainerError))

    def close(self, *, wait: bool = True) -> None:
        """Let it clean up and go."""
        self._connection.close()
        if self._pid:
            os.waitpid(self._pid, 0 if wait else os.WNOHANG)
            self._pid = 0

    def _exchange(self) -> dict[str, object]:
        data = self._connection.recv(1 << 16)
        if not data:
            raise HostError("the unpacking process ended at once", hint="see `usercontainer doctor`")
        return _parse_reply(data)

    def wait_ready(self) -> None:
        """Wait until it is in its namespace; raises what kept it from that."""
        if not self._ready:
            self._exchange()
            self._ready = True

    def _order(self, order: dict[str, object], fds: Sequence[int]) -> None:
        self.wait_ready()
        try:
            socket.send_fds(self._connection, [json.dumps(order).encode()], list(fds))
        except OSError as error:
            raise HostError(f"the unpacking process is gone: {error.strerror}") from error

    def stage(self, name: str, staging: int, trash: int, lock: int) -> None:
        """Make it answer for the directory ``name`` in ``staging``.

        At its end it deletes what is still there.
        """
        self._order({"do": "stage", "name": name}, (staging, trash, lock))

    def start_unpack(
        self, directory: str, limits: UnpackLimits, algorithm: str, *, defer_links: bool = False
    ) -> Unpacking:
        """Begin to unpack a layer into ``directory``.

        With ``defer_links`` hard links to files that the layer lacks are for ``resolve_links``, else an error.
        """
        opened: list[int] = []
        try:
            opened.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
            opened.extend(os.pipe())
            opened.extend(os.pipe())
            directory_fd, stream_read, stream_write, reply_read, reply_write = opened
            self._set_pipe_size(stream_write)
            order: dict[str, object] = {
                "do": "unpack",
                "algorithm": algorithm,
                "max_size": limits.size,
                "max_ratio": limits.ratio,
                "max_entries": limits.entries,
                "defer_links": defer_links,
            }
            self._order(order, (directory_fd, stream_read, reply_write))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        for fd in (directory_fd, stream_read, reply_write):
            os.close(fd)
        return Unpacking(stream_write, reply_read)

    def start_rebuild(self, layer_directory: str) -> Rebuilding:
        """Begin to give back the exact tar archive of the layer in ``layer_directory`` (``layers/HEX``)."""
        directory = os.open(layer_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return Rebuilding(*self._start_output({"do": "rebuild"}, directory), make_error)
        finally:
            os.close(directory)

    def start_join(self, directory: str, split: str) -> Rebuilding:
        """Begin to give back the exact tar archive of a layer that another tool has unpacked in ``directory``.

        ``split`` is its tar-split file. Raises ``OSError`` if one of them cannot be opened.
        """
        opened: list[int] = []
        try:
            # What is in it may be nobody's but a subordinate user's; for this, a way to it is enough.
            opened.append(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
            opened.append(os.open(split, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            return Rebuilding(*self._start_output({"do": "join"}, *opened), make_error)
        finally:
            for fd in opened:
                os.close(fd)

    def start_survey(self, directory: str, since: int) -> PathStream:
        """Begin to list what in ``directory`` was touched after ``since`` (nanoseconds since the epoch)."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return PathStream(*self._start_output({"do": "survey", "since": since}, fd), make_error)
        finally:
            os.close(fd)

    def start_archive(self, directory: str, mounted: Sequence[str] = ()) -> ArchiveStream:
        """Begin to write a tree in overlayfs's form (a container's upper directory) as a layer's tar archive.

        ``mounted`` are paths on which something was mounted, for which alone an empty file or directory is there.
        """
        return self._start_layers("archive", [directory], ArchiveStream, mounted=list(mounted))

    def start_export(self, directories: Sequence[str]) -> ArchiveStream:
        """Begin to write what these directories, the highest first, look like in an overlay mount."""
        return self._start_layers("export", directories, ArchiveStream)

    def start_changes(self, directory: str, lowers: Sequence[str]) -> ChangeStream:
        """Begin to list what ``directory`` changes of the ``lowers``, the highest first."""
        return self._start_layers("changes", [directory, *lowers], ChangeStream)

    def start_differences(
        self, directories: Sequence[str], others: Sequence[str], mounted: Sequence[str] = ()
    ) -> ChangeStream:
        """Begin to list how what is merged from ``directories``, the highest first, differs from ``others``."""
        return self._start_layers(
            "differences",
            [*directories, *others],
            ChangeStream,
            count=len(directories),
            mounted=list(mounted),
        )

    def resolve_links(self, layer_directory: str, lowers: Sequence[str]) -> None:
        """Make the hard links of a layer to files of the ``lowers`` (``diff`` directories, the highest first).

        For a layer where that is done already, compare: raises ``StoreError`` if it was completed with other files
        than these, ``InvalidFormat`` if a link leads to nothing.
        """
        with self._start_layers("links", [layer_directory, *lowers], Output) as output:
            output.read(1)

    def _start_layers(
        self, do: str, directories: Sequence[str], kind: type[_Stream], **more: object
    ) -> _Stream:
        base = os.path.commonpath(directories) if len(directories) > 1 else os.path.dirname(directories[0])
        # There may be hundreds: with short names they fit into one message.
        names = [os.path.relpath(directory, base) for directory in directories]
        fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return kind(*self._start_output({"do": do, "names": names, **more}, fd), make_error)
        finally:
            os.close(fd)

    def _start_output(self, order: dict[str, object], *fds: int) -> tuple[int, int]:
        """Give an order whose child writes to a stream; return the ends of the stream and of its reply."""
        opened: list[int] = []
        try:
            opened.extend(os.pipe())
            opened.extend(os.pipe())
            stream_read, stream_write, reply_read, reply_write = opened
            self._set_pipe_size(stream_write)
            self._order(order, (*fds, stream_write, reply_write))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        os.close(stream_write)
        os.close(reply_write)
        return stream_read, reply_read

    @staticmethod
    def _set_pipe_size(fd: int) -> None:
        import fcntl

        try:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:
            pass  # over the user's share of pipe memory: it works with less

    def remove(self, directory: str, names: Sequence[str]) -> list[str]:
        """Delete trees in ``directory``; return the names of those of which something is left."""
        left: list[str] = []
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for start in range(0, len(names), _NAMES_AT_ONCE):
                self._order({"do": "remove", "names": list(names[start : start + _NAMES_AT_ONCE])}, (fd,))
                remaining = self._exchange()["left"]
                left.extend(map(str, remaining if isinstance(remaining, list) else ()))
        finally:
            os.close(fd)
        return left

    def measure(self, directory: str, names: Sequence[str]) -> dict[str, int]:
        """Return how many bytes of files there are in each of these trees in ``directory``."""
        sizes: dict[str, int] = {}
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for start in range(0, len(names), _NAMES_AT_ONCE):
                some = list(names[start : start + _NAMES_AT_ONCE])
                self._order({"do": "measure", "names": some}, (fd,))
                found = self._exchange()["sizes"]
                for name, size in zip(some, found if isinstance(found, list) else (), strict=True):
                    sizes[name] = int(size)
        finally:
            os.close(fd)
        return sizes
