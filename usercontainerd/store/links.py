"""Hard links of a layer to files of the layers below it.

In an overlay such a link means what link(2) does there: the file is copied up into the layer, under its own name,
and gets the other name as well. This can only be done once the lower layers are there: unpacking writes such links
down in ``layers/HEX/links``, and they are made before the layer gets its place. Runs in a child of the worker.

A layer is shared by all images that have it, whatever lies below it in them. So that no image gets a file out of
another one's layers, what was copied is compared with what lies below whenever a layer with links is used again.
"""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.base.errors import InvalidFormat, StoreError
from usercontainerd.store.archive import read_xattrs
from usercontainerd.store.overlay import MergedDirectory, open_layers
from usercontainerd.store.recipe import NAME as RECIPE
from usercontainerd.store.tar import printable_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usercontainerd.store.overlay import Found

NAME = "links"
_MAX_FILE = 128 * 1024 * 1024
_PIECE = 256 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def render_links(links: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Render (new name, file) pairs, relative to the layer's root: each name ends with NUL."""
    return b"".join(path + b"\0" + source + b"\0" for path, source in links)


def parse_links(data: bytes) -> list[tuple[bytes, bytes]]:
    """Read what ``render_links`` wrote. Raises ``StoreError``."""
    names = data.split(b"\0")
    if names.pop() or len(names) % 2:
        raise StoreError("the layer's list of links is damaged", hint="remove the image and pull it again")
    return list(zip(names[::2], names[1::2], strict=True))


def resolve_links(base: int, layer: str, lowers: Sequence[str]) -> None:
    """Make the links of a layer, or compare those that are made with what is below now.

    ``layer`` is its directory, ``lowers`` the ``diff`` directories below it, the highest first; all relative to
    ``base``. Raises ``InvalidFormat`` for a link to nothing, ``StoreError`` if the layer has been completed with
    other files.
    """
    fd = os.open(f"{layer}/{NAME}", _FILE, dir_fd=base)
    try:
        links = parse_links(os.read(fd, _MAX_FILE))
    finally:
        os.close(fd)
    made: set[bytes] = set()
    changed = False
    with (
        open_layers(base, [f"{layer}/diff"]) as own,
        open_layers(base, lowers) as below,
        open_layers(base, [f"{layer}/diff", *lowers]) as whole,
    ):
        for path, source in links:
            if source not in made:
                changed |= _have_file(own, below, whole, path, source)
            changed |= _link(own.fds[0], source, path)
            made.add(path)
    if changed:
        # What is younger than its recipe would pass for having been touched since.
        os.utime(f"{layer}/{RECIPE}", dir_fd=base, follow_symlinks=False)


def _have_file(
    own: MergedDirectory, below: MergedDirectory, whole: MergedDirectory, path: bytes, source: bytes
) -> bool:
    """See to it that the layer has the file ``source`` of the lower layers itself; tell whether it was copied."""
    parents = source.split(b"/")
    name = parents.pop()
    with _Way(own, parents) as own_way, _Way(below, parents) as below_way, _Way(whole, parents) as whole_way:
        mine = own_way.find(name)
        theirs = below_way.find(name) if mine is not None else whole_way.find(name)
        if theirs is None or not (stat.S_ISREG(theirs.status.st_mode) or stat.S_ISLNK(theirs.status.st_mode)):
            raise InvalidFormat(
                f"the hard link {printable_name(path)} leads to {printable_name(source)}, which is no file of its "
                "layer or of those below",
                hint="build the image anew: the file that a hard link leads to must be there",
            )
        if mine is None:
            _copy(theirs, _make_parents(own.fds[0], whole, parents), name)
            return True
        if _describe(mine) != _describe(theirs) or not _same_content(mine, theirs):
            raise StoreError(
                f"another image has the same layer above another {printable_name(source)}, to which it has a hard link",
                hint="remove that image first",
            )
        return False


class _Way:
    """The directories down to ``last``, open; it is None if one is missing. A context manager."""

    def __init__(self, root: MergedDirectory, parents: Sequence[bytes]) -> None:
        self._opened: list[MergedDirectory] = []
        self.last: MergedDirectory | None = root
        for name in parents:
            if self.last is not None and (child := self.last.open_child(name)) is not None:
                self._opened.append(child)
                self.last = child
            else:
                self.last = None

    def __enter__(self) -> _Way:
        return self

    def __exit__(self, *_: object) -> None:
        for directory in self._opened:
            directory.close()

    def find(self, name: bytes) -> Found | None:
        return self.last.find(name) if self.last is not None else None


def _make_parents(root: int, whole: MergedDirectory, parents: Sequence[bytes]) -> int:
    """Have the directories of a path in the layer, like those below; return the last one, open."""
    directory = os.dup(root)
    for depth, name in enumerate(parents):
        try:
            child = os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            with _Way(whole, parents[: depth + 1]) as way:
                model = way.last
                if model is None:
                    raise
                before = os.fstat(directory)
                os.mkdir(name, 0o700, dir_fd=directory)
                child = os.open(name, _DIRECTORY, dir_fd=directory)
                _copy_attributes(model.fds[0], child)
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.close(directory)
        directory = child
    return directory


def _copy(found: Found, directory: int, name: bytes) -> None:
    """Copy a file into an open directory, which is closed and keeps its time."""
    before = os.fstat(directory)
    try:
        if stat.S_ISLNK(found.status.st_mode):
            os.symlink(os.readlink(found.name, dir_fd=found.at), name, dir_fd=directory)
            os.chown(name, found.status.st_uid, found.status.st_gid, dir_fd=directory, follow_symlinks=False)
            times = (found.status.st_mtime_ns, found.status.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        else:
            source = os.open(found.name, _FILE, dir_fd=found.at)
            try:
                target = os.open(
                    name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory
                )
                try:
                    while os.sendfile(target, source, None, 1 << 30):
                        pass
                    _copy_attributes(source, target)
                finally:
                    os.close(target)
            finally:
                os.close(source)
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(directory)


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name, value in read_xattrs(source).items():
        os.setxattr(target, name, value)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _describe(found: Found) -> tuple[object, ...]:
    status = found.status
    target = os.readlink(found.name, dir_fd=found.at) if stat.S_ISLNK(status.st_mode) else b""
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, target


def _same_content(one: Found, other: Found) -> bool:
    if not stat.S_ISREG(one.status.st_mode):
        return True
    first = os.open(one.name, _FILE, dir_fd=one.at)
    second = os.open(other.name, _FILE, dir_fd=other.at)
    try:
        if read_xattrs(first) != read_xattrs(second):
            return False
        while piece := os.read(first, _PIECE):
            if os.read(second, _PIECE) != piece:
                return False
        return True
    finally:
        os.close(first)
        os.close(second)


def _link(root: int, source: bytes, path: bytes) -> bool:
    """Give a file of the layer another name, if nothing has that name yet; tell whether it was given."""
    at, name = _open_parent(root, source)
    try:
        to, new_name = _open_parent(root, path)
        try:
            before = os.fstat(to)
            os.link(name, new_name, src_dir_fd=at, dst_dir_fd=to, follow_symlinks=False)
            os.utime(to, ns=(before.st_atime_ns, before.st_mtime_ns))
            return True
        except FileExistsError:
            return False
        finally:
            os.close(to)
    except FileNotFoundError as error:
        raise InvalidFormat(f"broken layer: the hard link {printable_name(path)} leads to nothing") from error
    finally:
        os.close(at)


def _open_parent(root: int, path: bytes) -> tuple[int, bytes]:
    *parents, name = path.split(b"/")
    directory = os.dup(root)
    for parent in parents:
        try:
            child = os.open(parent, _DIRECTORY, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidFormat(
                    f"broken layer: {printable_name(path)} is below something else"
                ) from error
            raise
        finally:
            os.close(directory)
        directory = child
    return directory, name
