"""Making directories that are the user's alone, and removing trees that hold what containers wrote.

Those have odd modes, foreign owners and deep nesting.
"""

from __future__ import annotations

import posix as os

from usercontainerd.base.paths import parent_of

MAX_DEPTH = 100  # directories that are open at the same time


def make_private_directories(path: str) -> None:
    """Make ``path`` and the parents that are missing, each at mode 700; ``os.makedirs`` has it for the last only.

    What containers and images leave in the store has set-user-ID files of the user: nobody else shall get there.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        import stat

        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise
    except FileNotFoundError:
        make_private_directories(parent_of(path))
        os.mkdir(path, 0o700)


def remove_tree(path: str) -> bool:
    """Remove ``path`` and everything below it, never following a symlink; tell whether nothing is left.

    Directories that forbid it (overlayfs leaves its work directory at mode 000) are made writable first. What
    belongs to subordinate IDs can only be removed inside the user namespace: then False comes back.
    """
    try:
        parent = os.open(parent_of(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return remove_entry(parent, path.rpartition("/")[2])
    finally:
        os.close(parent)


def remove_entry(directory: int, name: str) -> bool:
    """``remove_tree`` of ``name`` in an open directory."""
    try:
        os.unlink(name, dir_fd=directory)
        return True
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        pass
    except OSError:
        return False
    return _remove_directory(directory, name)


def _unlock_directory(at: int, entry: str) -> None:
    """Make a directory's mode 700; never that of what a symlink leads to."""
    fd = os.open(entry, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=at)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def _remove_directory(parent: int, name: str) -> bool:
    """Depth first with an explicit stack: a container may nest deeper than Python recurses.

    And deeper than there are descriptors: what lies too deep is moved up first.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    stack: list[tuple[int, str, list[str]]] = []  # (descriptor, own name, names still to look at)
    complete = True

    def push(at: int, entry: str) -> bool:
        try:
            fd = os.open(entry, flags, dir_fd=at)
        except PermissionError:
            try:
                _unlock_directory(at, entry)
                fd = os.open(entry, flags, dir_fd=at)
            except OSError:
                return False
        except OSError:
            return False
        try:
            os.fchmod(fd, 0o700)
        except OSError:
            pass  # not ours; removing may still be allowed
        stack.append((fd, entry, os.listdir(fd)))
        return True

    def lift(at: int, entry: str) -> bool:
        top, _, names = stack[0]
        place = f".deep-{os.urandom(8).hex()}"
        try:
            _unlock_directory(at, entry)  # moving one changes its ".."
            os.rename(entry, place, src_dir_fd=at, dst_dir_fd=top)
        except OSError:
            return False
        names.append(place)
        return True

    if not push(parent, name):
        return False
    while stack:
        fd, own, names = stack[-1]
        if names:
            entry = names.pop()
            try:
                os.unlink(entry, dir_fd=fd)
            except FileNotFoundError:
                pass
            except (IsADirectoryError, PermissionError):
                complete = (push if len(stack) < MAX_DEPTH else lift)(fd, entry) and complete
            except OSError:
                complete = False
            continue
        stack.pop()
        os.close(fd)
        try:
            os.rmdir(own, dir_fd=stack[-1][0] if stack else parent)
        except OSError:
            complete = False
    return complete


def measure_tree(directory: int, name: str) -> int:
    """Return the bytes of all files below ``name``, each counted once whatever links it has; never follows a symlink.

    ``directory`` is a descriptor. What cannot be read counts nothing.
    """
    import stat

    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    size = 0
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[int, list[str]]] = [(os.dup(directory), [name])]
    while stack:
        fd, names = stack[-1]
        if not names:
            os.close(stack.pop()[0])
            continue
        entry = names.pop()
        try:
            status = os.stat(entry, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                size += status.st_size
                continue
            child = os.open(entry, flags, dir_fd=fd)
        except OSError:
            continue
        stack.append((child, []))
        try:
            stack[-1][1].extend(os.listdir(child))
        except OSError:
            pass
    return size


def remove_file(path: str) -> None:
    """unlink(2), content if there is nothing."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
