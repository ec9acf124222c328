"""The part of ``os`` that unpacking uses, in memory: what chroot(2) gives, and a record of every path it was handed."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field


@dataclass
class Node:
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = -1
    content: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    device: int = 0
    links: int = 1
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, Node] = field(default_factory=dict)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class MemoryFileSystem:
    """Symlinks on the way are followed and cannot leave the root; the last component is not followed."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755)
        self.files: dict[int, Node] = {}
        self.offsets: dict[int, int] = {}
        self.paths: list[bytes] = []
        self.next_fd = 100

    # For tests

    def node(self, path: str) -> Node:
        return self._find(os.fsencode(path))

    def names(self, path: str = ".") -> list[str]:
        return sorted(name.decode() for name in self._find(path.encode()).children)

    # Resolution

    def _walk(self, path: bytes, depth: int = 0) -> tuple[Node, bytes]:
        """Return the directory and the last component."""
        self.paths.append(path)
        if b"\0" in path:
            raise ValueError("embedded null byte")
        if not path:
            raise _error(errno.ENOENT)
        if len(path) > 4095:
            raise _error(errno.ENAMETOOLONG)
        return self._resolve([self.root], path.split(b"/"), depth)

    def _resolve(self, stack: list[Node], parts: list[bytes], depth: int) -> tuple[Node, bytes]:
        parts = [part for part in parts if part not in (b"", b".")] or [b"."]
        for part in parts[:-1]:
            self._step(stack, part, depth)
        if not stat.S_ISDIR(stack[-1].mode):
            raise _error(errno.ENOTDIR)
        return stack[-1], parts[-1]

    def _step(self, stack: list[Node], part: bytes, depth: int) -> None:
        if depth > 40:
            raise _error(errno.ELOOP)
        if len(part) > 255:
            raise _error(errno.ENAMETOOLONG)
        if not stat.S_ISDIR(stack[-1].mode):
            raise _error(errno.ENOTDIR)
        if part == b"..":
            if len(stack) > 1:
                stack.pop()
            return
        if part not in stack[-1].children:
            raise _error(errno.ENOENT)
        node = stack[-1].children[part]
        if stat.S_ISLNK(node.mode):
            if node.target.startswith(b"/"):
                del stack[1:]
            for piece in node.target.split(b"/"):
                if piece not in (b"", b"."):
                    self._step(stack, piece, depth + 1)
        else:
            stack.append(node)

    def _find(self, path: bytes) -> Node:
        directory, name = self._walk(path)
        if name == b".":
            return directory
        if len(name) > 255:
            raise _error(errno.ENAMETOOLONG)
        if name not in directory.children:
            raise _error(errno.ENOENT)
        return directory.children[name]

    def _add(self, path: bytes, node: Node) -> Node:
        directory, name = self._walk(path)
        if len(name) > 255:
            raise _error(errno.ENAMETOOLONG)
        if name == b"." or name in directory.children:
            raise _error(errno.EEXIST)
        directory.children[name] = node
        if directory.mode & stat.S_ISGID:  # as the kernel does it
            node.gid = directory.gid
        return node

    # The interface

    def open(self, path: bytes, flags: int, mode: int = 0o777, /) -> int:
        self.next_fd += 1
        self.offsets[self.next_fd] = 0
        if not flags & os.O_WRONLY:
            assert flags & os.O_NOFOLLOW
            node = self._find(path)
            assert stat.S_ISREG(node.mode), "only files are read"
            self.files[self.next_fd] = node
            return self.next_fd
        assert flags & os.O_EXCL
        assert flags & os.O_CREAT
        self.files[self.next_fd] = self._add(path, Node(stat.S_IFREG | mode))
        return self.next_fd

    def read(self, fd: int, count: int, /) -> bytes:
        at = self.offsets[fd]
        data = bytes(self.files[fd].content[at : at + max(1, count // 2)])
        self.offsets[fd] += len(data)
        return data

    def readlink(self, path: bytes, /) -> bytes:
        node = self._find(path)
        if not stat.S_ISLNK(node.mode):
            raise _error(errno.EINVAL)
        return node.target

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        part = data[: max(1, len(data) // 2)]
        content, at = self.files[fd].content, self.offsets[fd]
        if at > 1 << 24:
            raise _error(errno.EFBIG)
        content += bytes(max(0, at - len(content)))
        content[at : at + len(part)] = part
        self.offsets[fd] += len(part)
        self.files[fd].mode &= ~0o6000
        return len(part)

    def lseek(self, fd: int, offset: int, how: int, /) -> int:
        assert how == os.SEEK_SET
        self.offsets[fd] = offset
        return offset

    def ftruncate(self, fd: int, length: int, /) -> None:
        if length > 1 << 24:
            raise _error(errno.EFBIG)
        content = self.files[fd].content
        content += bytes(max(0, length - len(content)))
        del content[length:]

    def close(self, fd: int, /) -> None:
        del self.files[fd]

    def fchown(self, fd: int, uid: int, gid: int, /) -> None:
        node = self.files[fd]
        node.uid, node.gid = uid, gid
        node.mode &= ~0o6000
        node.xattrs.pop(b"security.capability", None)

    def fchmod(self, fd: int, mode: int, /) -> None:
        self.files[fd].mode = stat.S_IFREG | mode

    def lchown(self, path: bytes, uid: int, gid: int, /) -> None:
        node = self._find(path)
        node.uid, node.gid = uid, gid

    def chmod(self, path: bytes, mode: int, /) -> None:
        node = self._find(path)
        assert not stat.S_ISLNK(node.mode), "chmod follows symlinks"
        node.mode = stat.S_IFMT(node.mode) | mode

    def mkdir(self, path: bytes, mode: int = 0o777, /) -> None:
        self._add(path, Node(stat.S_IFDIR | (mode & 0o1777)))

    def mknod(self, path: bytes, mode: int = 0o600, device: int = 0, /) -> None:
        assert stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and device == 0), "no devices"
        self._add(path, Node(mode, device=device))

    def symlink(self, target: bytes, path: bytes, /) -> None:
        self._add(path, Node(stat.S_IFLNK | 0o777, target=target))

    def link(self, source: bytes, target: bytes, /, *, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        node = self._find(source)
        assert not stat.S_ISDIR(node.mode)
        directory, name = self._walk(target)
        if name in directory.children:
            raise _error(errno.EEXIST)
        directory.children[name] = node
        node.links += 1

    def lstat(self, path: bytes, /) -> os.stat_result:
        node = self._find(path)
        fields = (node.mode, id(node), 0, node.links, node.uid, node.gid, len(node.content), 0, 0, 0)
        return os.stat_result(fields, {"st_rdev": node.device})

    def unlink(self, path: bytes, /) -> None:
        directory, name = self._walk(path)
        if name not in directory.children:
            raise _error(errno.ENOENT)
        if stat.S_ISDIR(directory.children[name].mode):
            raise _error(errno.EISDIR)
        directory.children.pop(name).links -= 1

    def rmdir(self, path: bytes, /) -> None:
        directory, name = self._walk(path)
        if directory.children[name].children:
            raise _error(errno.ENOTEMPTY)
        del directory.children[name]

    def listdir(self, path: bytes, /) -> list[bytes]:
        return list(self._find(path).children)

    def _any(self, path: bytes | int) -> Node:
        return self.files[path] if isinstance(path, int) else self._find(path)

    def utime(self, path: bytes | int, /, *, ns: tuple[int, int], follow_symlinks: bool = True) -> None:
        assert abs(ns[1]) < 1 << 70
        self._any(path).mtime = ns[1]

    def setxattr(
        self, path: bytes | int, name: bytes, value: bytes, /, *, follow_symlinks: bool = True
    ) -> None:
        node = self._any(path)
        if name.startswith(b"user.") and not (stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode)):
            raise _error(errno.EPERM)
        node.xattrs[name] = value
