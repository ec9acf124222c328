"""The half of the worker that runs inside the user namespace: unpacks layers and deletes trees.

It is exec'd (a user namespace can only be entered single-threaded), loads what it needs, enters the
namespace and then takes orders from ``worker.Worker`` on a socket at descriptor 0::

    Worker                                this process                     its child for one layer
    "stage" NAME + tmp, trash, lock --->  keeps the lock's descriptor
    "unpack" + directory, pipe, reply ->  fork ------------------------->  chroot, inflate, hash, unpack
    compressed bytes ---------------------------------------------------> (the pipe)
    <-------------------------------------------------------------------- {"diff_id": …} or {"error": …}
    "rebuild" + layer, pipe, reply --->   fork ------------------------->  chroot, read recipe and files
    <--------------------------------------------------------------------- (the pipe) the tar archive
    "archive", "export", "changes", "differences" NAME… + directory, pipe, reply  the same way
    "survey" TIME + directory, pipe, reply                                the same way
    "remove" NAME… + directory ------->   deletes; replies {"left": …}
    "measure" NAME… + directory ------>   replies {"sizes": …}
    end of file ---------------------->   ends its children, moves tmp/NAME to the trash, deletes it, leaves

So whatever happens to the other half, nothing half-made stays, unless this process is killed too; then the
next pull finds the lock free and sweeps.
"""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import sys

from usercontainerd.base.errors import HostError, UsercontainerError, describe_error
from usercontainerd.kernel.idmap import IdMap, explain_single_map, parse_id_map
from usercontainerd.kernel.trees import measure_tree, remove_tree
from usercontainerd.kernel.userns import enter_user_namespace
from usercontainerd.store.archive import TreeArchiver
from usercontainerd.store.changes import list_changes
from usercontainerd.store.differences import list_differences
from usercontainerd.store.inflate import Codecs, Replay, read_head
from usercontainerd.store.links import NAME as LINKS
from usercontainerd.store.links import render_links, resolve_links
from usercontainerd.store.mountpoints import MountPoints
from usercontainerd.store.overlay import open_layers
from usercontainerd.store.pipeline import Bounds, LayerStream
from usercontainerd.store.places import MappedIds
from usercontainerd.store.rebuild import rebuild_layer
from usercontainerd.store.recipe import NAME, Recorder
from usercontainerd.store.survey import list_touched
from usercontainerd.store.tarreader import TarReader
from usercontainerd.store.tarsplit import join_layer
from usercontainerd.store.unpack import Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

MAX_MESSAGE = 64 * 1024
MAX_FDS = 4
_RECORDS_AT_ONCE = 3000


def main(arguments: Sequence[str]) -> int:
    """``unpack-layer ID-MAP USER UID GID``, with the socket as standard input."""
    id_map = parse_id_map(arguments[0])
    user, uid, gid = arguments[1], int(arguments[2]), int(arguments[3])
    connection = socket.socket(fileno=0)
    connection.set_inheritable(False)
    # Ctrl-C reaches the whole foreground group; this half must live to clean up, and leaves at end of file.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    codecs = _load_everything()
    try:
        try:
            enter_user_namespace(id_map, 0)
        except UsercontainerError as error:
            connection.send(_encode_error(error))
            return 1
        connection.send(b'{"ready": true}')
    except BrokenPipeError:
        return 0  # it was not needed after all
    os.umask(0)
    _raise_file_limit()
    WorkerProcess(connection, codecs, _plan_ids(id_map, user, uid, gid)).run()
    return 0


def _load_everything() -> Codecs:
    """Load now what would otherwise be loaded later, from inside a layer's directory."""
    import hashlib

    hashlib.sha256(b"").hexdigest()  # OpenSSL reads its configuration at the first use
    try:
        import ctypes

        ctypes.CDLL("libgcc_s.so.1")  # glibc loads it when a thread is cancelled
    except (ImportError, OSError):
        pass
    return Codecs()


def _raise_file_limit() -> None:
    # Deleting holds one descriptor for each level of nesting.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _plan_ids(id_map: IdMap, user: str, uid: int, gid: int) -> MappedIds:
    hint = explain_single_map(user, uid, gid).hint if id_map.single else None
    return MappedIds(
        [(e.inside, e.length) for e in id_map.uids], [(e.inside, e.length) for e in id_map.gids], hint
    )


class WorkerProcess:
    """The loop that takes orders."""

    def __init__(self, connection: socket.socket, codecs: Codecs, ids: MappedIds) -> None:
        self._connection = connection
        self._codecs = codecs
        self._ids = ids
        self._children: set[int] = set()
        self._stages: list[tuple[str, int, int]] = []  # name, directory of stages, trash
        self._held: list[int] = []

    def run(self) -> None:
        """Serve until the other half is gone."""
        while True:
            message, fds = _receive(self._connection)
            if not message:
                break
            order = json.loads(message)
            if order["do"] == "stage":
                staging, trash, lock = fds
                self._stages.append((order["name"], staging, trash))
                self._held.append(lock)
                continue
            if order["do"] in _CHILDREN:
                self._start_child(order, fds)
            elif order["do"] == "remove":
                self._remove(order, fds[0])
            elif order["do"] == "measure":
                self._measure(order, fds[0])
            for fd in fds:
                os.close(fd)
        self._clean_up()

    def _start_child(self, order: dict[str, Any], fds: list[int]) -> None:
        child = os.fork()
        if child:
            self._children.add(child)
            return
        # Nothing may return from here into the parent's loop.
        try:
            self._connection.close()
            for fd in (*self._held, *(fd for _, *pair in self._stages for fd in pair)):
                os.close(fd)
            *given, reply = fds
            os.write(reply, _CHILDREN[order["do"]](order, given, self._codecs, self._ids))
        except BaseException:
            os._exit(1)
        os._exit(0)

    def _remove(self, order: dict[str, Any], directory: int) -> None:
        left = [name for name in order["names"] if not remove_tree(f"/proc/self/fd/{directory}/{name}")]
        _answer(self._connection, json.dumps({"left": left}).encode())

    def _measure(self, order: dict[str, Any], directory: int) -> None:
        sizes = [measure_tree(directory, name) for name in order["names"]]
        self._connection.send(json.dumps({"sizes": sizes}).encode())

    def _clean_up(self) -> None:
        for child in self._children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for child in self._children:
            os.waitpid(child, 0)
        for name, staging, trash in self._stages:
            try:
                # What was completed has been renamed away already.
                os.rename(name, name, src_dir_fd=staging, dst_dir_fd=trash)
            except OSError:
                continue
            remove_tree(f"/proc/self/fd/{trash}/{name}")


def _answer(connection: socket.socket, data: bytes) -> None:
    try:
        connection.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # killed: the next thing that comes is the end of file


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    try:
        message, ancillary, _flags, _address = connection.recvmsg(
            MAX_MESSAGE, socket.CMSG_LEN(MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:  # the other side left with an answer of ours unread: it is gone all the same
        return b"", []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def _encode_error(error: UsercontainerError) -> bytes:
    return json.dumps(describe_error(error)).encode()[:MAX_MESSAGE]


def _forget_modules() -> None:
    """Import nothing from here on: after chroot(2) it would be code out of a layer."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()


def unpack_stream(order: dict[str, Any], fds: Sequence[int], codecs: Codecs, ids: MappedIds) -> bytes:
    """Unpack what comes from a stream into a directory, which becomes the root; return the reply.

    ``fds`` are directory and stream. ``order`` holds the bounds and the algorithm of the diffID. The recipe
    is put beside the directory. For a process of its own: it never gets out again.
    """
    directory, stream = fds
    try:
        os.fchdir(directory)
        recipe = os.open(
            f"../{NAME}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        head = read_head(lambda count: os.read(stream, count))
        codecs.prepare(head)
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chroot(".")
        _forget_modules()
        recorder = Recorder(recipe, codecs.gzip)
        source = LayerStream(
            Replay(head, lambda count: os.read(stream, count)).read,
            codecs,
            Bounds(size=order["max_size"], ratio=order["max_ratio"]),
            algorithm=order["algorithm"],
        )
        unpacker = Unpacker(
            os,
            ids,
            max_entries=order["max_entries"],
            max_size=order["max_size"],
            defer_links=order["defer_links"],
            recorder=recorder,
        )
        summary = unpacker.unpack(TarReader(source, recorder.add))
        diff_id = source.finish(recorder.add)
        is_complete = recorder.finish()
        links = _write_links(unpacker, above)
    except UsercontainerError as error:
        return _encode_error(error)
    except OSError as error:
        return _encode_error(HostError(f"cannot unpack: {error}"))
    return json.dumps(
        {
            "diff_id": diff_id,
            "entries": summary.entries,
            "size": summary.size,
            "tar_size": source.size,
            "needs_blob": not is_complete,
            "links": links,
            "warnings": summary.warnings,
            "warning_count": summary.warning_count,
        }
    ).encode()


def _write_links(unpacker: Unpacker, directory: int) -> int:
    """Write down the links to lower layers, if there are any; return how many."""
    links = unpacker.list_deferred()
    if links:
        fd = os.open(
            LINKS,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=directory,
        )
        with open(fd, "wb") as file:
            file.write(render_links(links))
    return len(links)


def links_stream(order: dict[str, Any], fds: Sequence[int], _codecs: Codecs, _ids: MappedIds) -> bytes:
    """Make or compare the hard links of the first layer to files of the others; nothing is written to the stream."""
    base, stream = fds
    layer, *lowers = order["names"]
    return _write_output(stream, lambda _write: resolve_links(base, layer, lowers))


def rebuild_stream(_order: dict[str, Any], fds: Sequence[int], codecs: Codecs, _ids: MappedIds) -> bytes:
    """Write the archive of a layer to a stream; return the reply. For a process of its own as well."""
    directory, stream = fds
    _forget_modules()
    return _write_output(stream, lambda write: rebuild_layer(directory, write, codecs.gzip))


def join_stream(_order: dict[str, Any], fds: Sequence[int], codecs: Codecs, _ids: MappedIds) -> bytes:
    """Write the archive of a layer of another tool's store to a stream; return the reply."""
    directory, split, stream = fds
    _forget_modules()
    return _write_output(stream, lambda write: join_layer(directory, split, write, codecs))


def _write_output(stream: int, make: Callable[[Callable[[bytes], object]], Sequence[str] | None]) -> bytes:
    """Let ``make`` write to the stream and close it; return the reply, with the warnings it returns."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(stream, view) :]

    try:
        warnings = make(write) or ()
    except UsercontainerError as error:
        return _encode_error(error)
    except BrokenPipeError:
        return b""  # nobody wants the rest
    except OSError as error:
        return _encode_error(HostError(f"cannot read the layer: {error}"))
    finally:
        os.close(stream)
    return json.dumps({"warnings": list(warnings)}).encode()


def survey_stream(order: dict[str, Any], fds: Sequence[int], _codecs: Codecs, _ids: MappedIds) -> bytes:
    """Write the paths of a directory that were touched after a time to a stream, each with a NUL."""
    directory, stream = fds

    def make(write: Callable[[bytes], object]) -> None:
        for path in list_touched(directory, order["since"]):
            write(path + b"\0")

    return _write_output(stream, make)


def archive_stream(order: dict[str, Any], fds: Sequence[int], _codecs: Codecs, _ids: MappedIds) -> bytes:
    """Write the archive of one layer's tree (``archive``) or of several merged (``export``) to a stream."""
    base, stream = fds

    def make(write: Callable[[bytes], object]) -> list[str]:
        root = open_layers(base, order["names"])
        whiteouts = order["do"] == "archive"
        return TreeArchiver(write, whiteouts=whiteouts, mounted=_read_mounted(order)).write_tree(root)

    return _write_output(stream, make)


def changes_stream(order: dict[str, Any], fds: Sequence[int], _codecs: Codecs, _ids: MappedIds) -> bytes:
    """Write how the first of the layers changes the others to a stream: letter, path, NUL."""
    base, stream = fds
    upper, *lowers = order["names"]
    return _write_changes(stream, lambda: list_changes(open_layers(base, [upper]), open_layers(base, lowers)))


def differences_stream(order: dict[str, Any], fds: Sequence[int], _codecs: Codecs, _ids: MappedIds) -> bytes:
    """Write how what is merged from the first ``count`` layers differs from the others in the same form."""
    base, stream = fds
    new, old = order["names"][: order["count"]], order["names"][order["count"] :]
    mounted = _read_mounted(order)
    return _write_changes(
        stream, lambda: list_differences(open_layers(base, new), open_layers(base, old), mounted)
    )


def _read_mounted(order: dict[str, Any]) -> MountPoints:
    return MountPoints(map(os.fsencode, order.get("mounted", ())))


def _write_changes(stream: int, changes: Callable[[], Iterable[tuple[bytes, bytes]]]) -> bytes:
    def make(write: Callable[[bytes], object]) -> None:
        records: list[bytes] = []
        for kind, path in changes():
            records += (kind, path, b"\0")
            if len(records) >= _RECORDS_AT_ONCE:
                write(b"".join(records))
                records.clear()
        write(b"".join(records))

    return _write_output(stream, make)


_CHILDREN = {
    "unpack": unpack_stream,
    "rebuild": rebuild_stream,
    "join": join_stream,
    "survey": survey_stream,
    "archive": archive_stream,
    "export": archive_stream,
    "changes": changes_stream,
    "links": links_stream,
    "differences": differences_stream,
}
