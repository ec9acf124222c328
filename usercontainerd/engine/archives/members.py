"""Finding the parts of an image in a tar file or a directory by their names.

A name in an archive never becomes a path of this host: a tar file is read once for its headers, then contents are
read by their offsets. In a directory the kernel keeps every step beneath it.
"""

from __future__ import annotations

import os
import stat

from usercontainerd.base.errors import DigestMismatch, InvalidArgument, InvalidFormat
from usercontainerd.engine.archives.input import name_archive
from usercontainerd.oci.digest import new_hash
from usercontainerd.store import tar
from usercontainerd.store.tarreader import TarReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from usercontainerd.oci.manifest import Descriptor

    class Members(Protocol):
        """Named pieces of data; ``where`` names the whole in messages.

        Methods raise ``InvalidFormat`` for what is not there, or is no file.
        """

        where: str

        def has(self, name: str) -> bool:
            """Tell whether there is a file of that name."""

        def size(self, name: str) -> int:
            """Bytes of it."""

        def read(self, name: str, *, limit: int) -> bytes:
            """Return a small file whole."""

        def pieces(self, name: str) -> Iterator[bytes]:
            """Yield its content."""

        def close(self) -> None:
            """Close what is open."""


CHUNK = 256 * 1024
MAX_MEMBERS = 50_000
MAX_NAME = 512  # bytes; no tool gives a part of an image a longer name
MAX_LINKS = 8
_RESOLVE_BENEATH = 0x08
_BLANK = bytes(CHUNK)


def clean_name(text: str) -> str | None:
    """``./a//b`` as ``a/b``; None for a name that leads out, or nowhere."""
    if text.startswith("/") or "\0" in text:
        return None
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) or None


class _Headers:
    """What the tar reader reads from: contents are only ever skipped, so nothing is read for them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self.at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        data = b""
        while len(data) < count and (more := os.pread(self._fd, count - len(data), self.at)):
            data += more
            self.at += len(more)
        return data

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Move on; what is yielded has the right length only."""
        left = min(count, self._end - self.at)
        while left > 0:
            step = min(left, len(_BLANK))
            self.at += step
            left -= step
            yield memoryview(_BLANK)[:step]


class _Member:
    """A file in the archive (``target`` None), or a link to one; ``count`` members have the same name."""

    __slots__ = ("count", "offset", "size", "target")

    def __init__(self, offset: int, size: int, target: str | None = None) -> None:
        self.offset = offset
        self.size = size
        self.target = target
        self.count = 1


class TarMembers:
    """A tar file that can be read anywhere; the descriptor goes with it."""

    def __init__(self, fd: int, where: str) -> None:
        self._fd = fd
        self.where = where
        try:
            self._members = _read_index(fd)
        except InvalidFormat as error:
            os.close(fd)
            raise name_archive(error, where) from None
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def has(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        return self._resolve(name) is not None

    def size(self, name: str) -> int:
        """Bytes of it."""
        return self._find(name).size

    def read(self, name: str, *, limit: int) -> bytes:
        """Return a small file whole. A name that is there twice is refused: tools disagree on which counts."""
        member = self._find(name)
        if member.count > 1:
            raise InvalidFormat(f"{name!r} is in the archive {member.count} times", where=self.where)
        if member.size > limit:
            raise InvalidFormat(
                f"{name!r} has {member.size} bytes, more than the {limit} allowed", where=self.where
            )
        return b"".join(self._pieces(member))

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield its content."""
        return self._pieces(self._find(name))

    def _pieces(self, member: _Member) -> Iterator[bytes]:
        at, end = member.offset, member.offset + member.size
        while at < end:
            data = os.pread(self._fd, min(CHUNK, end - at), at)
            if not data:
                raise InvalidFormat("the archive has become shorter while it was read", where=self.where)
            at += len(data)
            yield data

    def _find(self, name: str) -> _Member:
        member = self._resolve(name)
        if member is None:
            raise InvalidFormat(f"{name!r} is not in the archive", where=self.where)
        return member

    def _resolve(self, name: str) -> _Member | None:
        wanted = clean_name(name)
        for _ in range(MAX_LINKS):
            member = self._members.get(wanted or "")
            if member is None or member.target is None:
                return member
            wanted = member.target
        return None


def _read_index(fd: int) -> dict[str, _Member]:
    source = _Headers(fd)
    reader = TarReader(source)
    members: dict[str, _Member] = {}
    if os.fstat(fd).st_size % tar.BLOCK:
        raise InvalidFormat("this is not a tar archive, or not all of one")
    while (entry := reader.read_entry()) is not None:
        if reader.entries > MAX_MEMBERS:
            raise InvalidFormat(f"there are more than the {MAX_MEMBERS} files allowed in an image archive")
        if len(entry.name) > MAX_NAME:
            continue
        name = clean_name(entry.name.decode("utf-8", "replace"))
        member = _read_member(entry, name, source.at)
        if name is None or member is None:
            continue
        if (same := members.get(name)) is not None:
            member.count = same.count + 1
        members[name] = member
    return members


def _read_member(entry: tar.Entry, name: str | None, offset: int) -> _Member | None:
    """A member as far as it can be part of an image: directories, devices and their like are none."""
    if entry.type == tar.REGULAR:
        if entry.segments is not None:
            # Its bytes are not its content, and nobody writes an image so.
            raise InvalidFormat(f"{tar.printable_name(entry.name)} is a sparse file")
        return _Member(offset, entry.size)
    if entry.type not in (tar.SYMLINK, tar.HARD_LINK) or name is None or len(entry.linkname) > MAX_NAME:
        return None
    link = entry.linkname.decode("utf-8", "replace")
    if entry.type == tar.SYMLINK and not link.startswith("/"):
        link = f"{os.path.dirname(name)}/{link}".lstrip("/")
    target = clean_name(link)
    return None if target is None else _Member(offset, 0, target)


class DirectoryMembers:
    """A directory of files; symlinks in it may lead to places in it only."""

    def __init__(self, path: str) -> None:
        self.where = path
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidArgument(f"cannot read: {error.strerror}", where=path) from error

    def close(self) -> None:
        """Close the directory."""
        os.close(self._fd)

    def has(self, name: str) -> bool:
        """Tell whether there is something of that name."""
        try:
            os.close(self._open(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._explain(name, error) from error
        return True

    def size(self, name: str) -> int:
        """Bytes of it."""
        fd = self._open_file(name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def read(self, name: str, *, limit: int) -> bytes:
        """Return a small file whole."""
        data = bytearray()
        for piece in self.pieces(name):
            data += piece
            if len(data) > limit:
                raise InvalidFormat(f"{name!r} has more than the {limit} bytes allowed", where=self.where)
        return bytes(data)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield its content."""
        fd = self._open_file(name)
        try:
            while data := os.read(fd, CHUNK):
                yield data
        except OSError as error:
            raise self._explain(name, error) from error
        finally:
            os.close(fd)

    def _open(self, name: str) -> int:
        from usercontainerd.kernel.syscalls import openat2

        # A FIFO or a device must not make us wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        return openat2(self._fd, name, flags, resolve=_RESOLVE_BENEATH)

    def _open_file(self, name: str) -> int:
        try:
            fd = self._open(name)
        except OSError as error:
            raise self._explain(name, error) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidFormat("this is not a file", where=f"{self.where}/{name}")
        return fd

    def _explain(self, name: str, error: OSError) -> InvalidFormat:
        if isinstance(error, FileNotFoundError):
            return InvalidFormat(f"{name!r} is not there", where=self.where)
        return InvalidFormat(f"cannot read: {error.strerror}", where=f"{self.where}/{name}")


def copy_checked(
    pieces: Iterable[bytes],
    blob: Descriptor,
    write: Callable[[bytes], object],
    progress: Callable[[int], None] | None,
    where: str,
) -> None:
    """Hand a blob to ``write`` piece by piece.

    Raises ``DigestMismatch`` at the end if it was another: what ``write`` has got must then not be used.
    """
    state = new_hash(blob.digest.algorithm)
    done = 0
    for piece in pieces:
        done += len(piece)
        if done > blob.size:
            raise _explain_mismatch(f"it has more than the {blob.size} bytes promised", blob, where)
        state.update(piece)
        write(piece)
        if progress is not None:
            progress(done)
    if done != blob.size:
        raise _explain_mismatch(f"it has {done} bytes, not the {blob.size} promised", blob, where)
    actual = f"{blob.digest.algorithm}:{state.hexdigest()}"
    if actual != blob.digest:
        raise _explain_mismatch(f"got {actual}", blob, where)


def _explain_mismatch(what: str, blob: Descriptor, where: str) -> DigestMismatch:
    return DigestMismatch(
        f"a blob is not the promised one: expected {blob.digest}, {what}",
        where=where,
        hint="the archive is damaged, or was changed; nothing of it was kept",
    )
