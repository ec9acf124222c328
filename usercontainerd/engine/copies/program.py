"""The program ``copy-files REQUEST``: reads or writes files of one container, as the container sees them.

A process of its own, since only one with a single thread can join a user namespace. REQUEST is a JSON object, see
``copying``. Descriptor 0 takes the answers, a JSON object a line; descriptor 1 is the archive, to be written or read::

    caller                                    this process
    spawn --------------------------------->  join the container's namespaces, or mount its root in new ones
          <--------------------------------   {"found": …}: what the path stands for (only when reading)
          <--------------------------------   {"progress": bytes} where the caller does not see them pass
    the archive, one way or the other
          <--------------------------------   {"warnings": […]}, {"broken": true} if nobody reads the archive,
                                              or {"error": …, "what": …, "where": …, "hint": …}

From the moment when the container's root is our own nothing is imported any more: it would be code of the container.
No path of the container's leads out of its root, and no process of it sees this one: we are not in its PID namespace.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from functools import partial

from usercontainerd.base.errors import HostError, InvalidArgument, UsercontainerError, describe_error
from usercontainerd.base.paths import Paths
from usercontainerd.engine.cancellation import cancel_on
from usercontainerd.engine.containers.lookup import get_init
from usercontainerd.engine.copies.paths import STREAM, find_place, open_target, parse_source
from usercontainerd.engine.copies.streams import raise_file_limit, read_pieces, write_pieces, write_target
from usercontainerd.kernel.syscalls import RESOLVE_NO_MAGICLINKS, openat2
from usercontainerd.kernel.userns import CLONE_NEWNS, CLONE_NEWUSER
from usercontainerd.runtime.stoppedroot import StoppedRoot, enter_stopped_root
from usercontainerd.store.archive import TreeArchiver
from usercontainerd.store.archive_inflate import inflate_any, load_all
from usercontainerd.store.inflate import Codecs
from usercontainerd.store.overlay import MergedDirectory
from usercontainerd.store.treewriter import Manner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from usercontainerd.engine.copies.paths import Target

REPLY, ARCHIVE = 0, 1
INTERVAL = 0.1  # seconds between two reports
# proc(5) and its like: the types of file systems whose files the kernel makes up.
MADE_UP = frozenset(
    (
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "devpts",
        "mqueue",
        "debugfs",
        "tracefs",
        "securityfs",
        "selinuxfs",
    )
)


class Counter:
    """Counts bytes and tells the caller, not too often; a caller that is gone ends all."""

    def __init__(self, *, told: bool) -> None:
        self._told = told
        self._done = 0
        self._last = 0.0

    def __call__(self, count: int) -> None:
        """Take note of ``count`` more bytes."""
        self._done += count
        now = time.monotonic()
        if self._told and now - self._last > INTERVAL:
            self._last = now
            answer({"progress": self._done})


def answer(word: dict[str, Any]) -> None:
    """Write one object. Raises ``BrokenPipeError`` if nobody waits for it."""
    data = json.dumps(word).encode() + b"\n"
    while data:
        data = data[os.write(REPLY, data) :]


def find_made_up(pid: int) -> set[int]:
    """The devices of the file systems that a process sees and whose files the kernel makes up (proc(5), mountinfo)."""
    found = set()
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        for line in file:
            head, _, tail = line.partition(b" - ")
            if tail.split(b" ", 1)[0].decode("ascii", "replace") in MADE_UP:
                major, minor = head.split(b" ")[2].split(b":")
                found.add(os.makedev(int(major), int(minor)))
    return found


def enter_running(paths: Paths, name: str) -> set[int]:
    """Join the namespaces of a running container; return what ``find_made_up`` finds. Raises ``NotRunning``."""
    init = get_init(paths, name)
    try:
        made_up = find_made_up(init.pid)
        flags = CLONE_NEWUSER | CLONE_NEWNS
        if hasattr(os, "setns"):
            os.setns(init.fd, flags)
        else:
            from usercontainerd.kernel.syscalls import setns

            setns(init.fd, flags)
    except FileNotFoundError:
        made_up = set()
    except OSError as error:
        raise HostError(f"cannot join the container's namespaces: {error.strerror}", where=name) from error
    finally:
        os.close(init.fd)
    return made_up


def become_root() -> None:
    """Take the IDs 0 of the namespace that was joined."""
    os.setresgid(0, 0, 0)
    try:
        os.setgroups([])
    except PermissionError:
        pass  # a namespace of a single ID, where groups cannot be set
    os.setresuid(0, 0, 0)


def open_inside(at: int, path: bytes) -> int:
    """Open a directory by the container's own paths; not by the links of its /proc, which may lead anywhere."""
    flags = os.O_PATH | os.O_DIRECTORY
    return openat2(at, os.fsdecode(path), flags, resolve=RESOLVE_NO_MAGICLINKS)


def follow_inside(at: int, name: bytes) -> int:
    """Open what a symlink leads to, as the kernel would; -1 if it is not one of the container's root's.

    So nobody else in the container can have what root unpacks end up elsewhere.
    """
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode) or status.st_uid != 0:
        return -1
    return openat2(at, os.fsdecode(name), os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_NO_MAGICLINKS)


def send_files(request: dict[str, Any], made_up: set[int]) -> list[str]:
    """Write the archive of what the path stands for."""
    place = find_place(request["path"], open_directory=open_inside)
    try:
        source = place.describe_source()
        answer({"found": source.as_dict()})
        counter = Counter(told=request["progress"])
        archiver = TreeArchiver(
            lambda data: write_pieces(ARCHIVE, data, counter),
            whiteouts=False,
            sparse=request["sparse"],
            made_up=made_up,
        )
        title = os.fsencode(request["title"]) or source.name
        return archiver.write_item(MergedDirectory([place.parent]), place.name, title)
    finally:
        place.close()


def receive_files(request: dict[str, Any], codecs: Codecs) -> list[str]:
    """Unpack the archive to where docker's rules put it."""
    source = parse_source(request["source"])
    place = find_place(request["path"], open_directory=open_inside)
    try:
        target = open_target(source, place, overwrite=request["overwrite"])
    finally:
        place.close()
    try:
        check_kept(request, target)
        is_stream = source.kind == STREAM
        pieces = read_pieces(ARCHIVE, Counter(told=request["progress"]))
        if is_stream:
            pieces = inflate_any(partial(_take_next, pieces), codecs)
        manner = Manner(
            owner=(0, 0),
            exact=request["exact"],
            overwrite=request["overwrite"],
            follow=follow_inside if is_stream else None,
        )
        return write_target(target, manner, pieces)
    finally:
        target.close()


def _take_next(pieces: Iterator[bytes], _count: int) -> bytes:
    return next(pieces, b"")


def check_kept(request: dict[str, Any], target: Target) -> None:
    """Refuse what would be lost: ``sealed`` says why nothing can be written to the root itself."""
    if request["sealed"] and os.fstat(target.at).st_dev == os.stat("/").st_dev:
        raise InvalidArgument(request["sealed"], where=request["path"], hint=request["hint"])


def main(arguments: list[str], environment: dict[str, str]) -> int:
    """Do what the request asks for; the answer has the outcome."""
    outcome: dict[str, Any]
    try:
        cancel_on((signal.SIGTERM, signal.SIGINT), "the copy was cancelled")
        signal.signal(signal.SIGPIPE, lambda _number, _frame: None)
        outcome = {"warnings": run(json.loads(arguments[0]), environment)}
    except UsercontainerError as error:
        outcome = describe_error(error)
    except BrokenPipeError:
        outcome = {"broken": True}
    except OSError as error:
        outcome = describe_error(HostError(f"cannot copy: {error.strerror}", where=error.filename))
    try:
        answer(outcome)
    except (BrokenPipeError, UsercontainerError):
        return 1
    return 0


def run(request: dict[str, Any], environment: dict[str, str]) -> list[str]:
    """Go to the container's root, and read or write there."""
    os.set_blocking(ARCHIVE, True)  # a client's main loop may have it otherwise
    codecs = Codecs()
    if request["do"] == "in" and request["source"]["kind"] == STREAM:
        load_all(codecs)
    made_up: set[int] = set()
    if request["root"] is None:
        made_up = enter_running(Paths.from_environment(environment, os.getuid()), request["name"])
        become_root()
    else:
        enter_stopped_root(StoppedRoot(**request["root"]))
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    os.umask(0)
    raise_file_limit()
    if request["do"] == "in":
        return receive_files(request, codecs)
    return send_files(request, made_up)
