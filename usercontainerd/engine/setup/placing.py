"""``usercontainer setup``: brings files to where ``plan`` wants them, and takes them away again.

Each file is replaced by rename, and recorded before it is touched: whatever interrupts it, the next run goes on. A
file that is not ours, or that somebody has changed since, is never touched unless the caller insists.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from usercontainerd.base.errors import AlreadyExists
from usercontainerd.base.records import dataclass, replace
from usercontainerd.engine.setup.plan import File, Installed, Places, Plan, Scope
from usercontainerd.engine.setup.record import Record, hash_content, read_record, write_record
from usercontainerd.kernel.atomicfile import explain_write_error, write_atomic


class Act(StrEnum):
    """What is done to a path."""

    WRITE = "write"
    REPLACE = "replace"
    LINK = "link"
    REMOVE = "remove"
    KEEP = "keep"  # it has changed since, so it is somebody's


@dataclass(frozen=True)
class Step:
    """One change."""

    act: Act
    path: str


@dataclass(frozen=True)
class Changes:
    """What is to be done, and the ``conflicts``: files there that are not ours to replace."""

    steps: tuple[Step, ...]
    conflicts: tuple[str, ...]


def read_content(path: str) -> bytes | None:
    """Return a regular file's content; None: there is none. A link or a directory has a content that is nobody's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return b"\0" + os.fsencode(path)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            with open(fd, "rb", closefd=False) as file:
                return file.read()
    except OSError:
        pass
    finally:
        os.close(fd)
    return b"\0" + os.fsencode(path)


def read_link(path: str) -> str | None:
    """Return what a symbolic link leads to; None: there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def plan_changes(plan: Plan, record: Record | None) -> Changes:
    """Compare with what is there."""
    steps, conflicts = [], []
    known = record.files if record else {}
    known_links = record.links if record else {}
    for file in plan.files:
        content = read_content(file.path)
        if content is None:
            steps.append(Step(Act.WRITE, file.path))
        elif content != file.content:
            steps.append(Step(Act.REPLACE, file.path))
            if hash_content(content) not in known.get(file.path, ()):
                conflicts.append(file.path)
        elif os.stat(file.path).st_mode & 0o7777 != file.mode:
            steps.append(Step(Act.REPLACE, file.path))
    for path, target in plan.links.items():
        if read_link(path) != target:
            steps.append(Step(Act.LINK, path))
            if os.path.lexists(path) and read_link(path) != known_links.get(path):
                conflicts.append(path)
    if record:
        wanted = {file.path for file in plan.files} | plan.links.keys()
        steps += (step for step in plan_removal(record) if step.path not in wanted)
    return Changes(tuple(steps), tuple(conflicts))


def plan_removal(record: Record) -> Iterator[Step]:
    """Yield what removing a set-up does: files that have changed since are kept."""
    for path, target in record.links.items():
        if os.path.lexists(path):
            yield Step(Act.REMOVE if read_link(path) == target else Act.KEEP, path)
    for path, digests in record.files.items():
        content = read_content(path)
        if content is not None:
            yield Step(Act.REMOVE if hash_content(content) in digests else Act.KEEP, path)


def apply_setup(installed: Installed, places: Places, plan: Plan, *, force: bool = False) -> tuple[Step, ...]:
    """Do it; return what was done. Raises ``AlreadyExists`` for files that are not ours, unless forced."""
    before = read_record(places.record)
    changes = plan_changes(plan, before)
    if changes.conflicts and not force:
        raise AlreadyExists(
            f"{len(changes.conflicts)} of the files are there and not ours (or changed since)"
            if len(changes.conflicts) > 1
            else "this file is there and not ours (or changed since)",
            where=", ".join(changes.conflicts),
            hint="move it away, or let `usercontainer setup --force` replace it",
        )
    digests = {file.path: (hash_content(file.content),) for file in plan.files}
    record = Record(
        installed.version,
        installed.prefix,
        installed.copy.locations[0],
        installed.copy.interpreter,
        installed.python,
        digests,
        plan.links,
        before.directories if before else (),
    )
    if not changes.steps and record == before:
        return ()
    directories = Directories(record.directories, places.scope)
    paths = (places.record, *digests, *plan.links)
    missing = directories.plan(os.path.dirname(path) for path in paths)
    record = replace(record, directories=missing)
    directories.make(os.path.dirname(places.record))
    write_record(places.record, merge_records(before, record))
    contents = {file.path: file for file in plan.files}
    for step in changes.steps:
        directories.make(os.path.dirname(step.path)) if step.act not in (Act.REMOVE, Act.KEEP) else None
        apply_step(step, contents, plan.links)
    write_record(places.record, record)
    remove_directories(before.directories if before else (), keep=set(record.directories) & _parents(paths))
    return changes.steps


def merge_records(before: Record | None, after: Record) -> Record:
    """Return a record of either: files may be those of before or of after. Pure."""
    if before is None:
        return after
    files = {
        path: tuple(dict.fromkeys((*before.files.get(path, ()), *after.files.get(path, ()))))
        for path in (*before.files, *after.files)
    }
    return replace(after, files=files, links={**before.links, **after.links})


def apply_step(step: Step, files: Mapping[str, File], links: Mapping[str, str]) -> None:
    """Change one path. Raises ``StoreError``."""
    try:
        match step.act:
            case Act.WRITE | Act.REPLACE:
                file = files[step.path]
                if os.path.isdir(step.path) and not os.path.islink(step.path):
                    raise IsADirectoryError(21, "a directory is there", step.path)
                write_atomic(step.path, file.content, mode=file.mode, sync=False)
                os.chmod(step.path, file.mode)  # whatever the umask
            case Act.LINK:
                replace_link(step.path, links[step.path])
            case Act.REMOVE:
                os.unlink(step.path)
            case Act.KEEP:
                pass
    except OSError as error:
        if not (step.act is Act.REMOVE and isinstance(error, FileNotFoundError)):
            raise explain_write_error(error, step.path) from error


def replace_link(path: str, target: str) -> None:
    """Have ``path`` lead to ``target``, whatever link or file is there. Raises ``OSError``."""
    temporary = f"{path}.new-{os.getpid()}"
    os.symlink(target, temporary)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def remove_setup(places: Places, record: Record) -> tuple[Step, ...]:
    """Take away what a set-up has brought; return what was done."""
    steps = tuple(plan_removal(record))
    for step in steps:
        apply_step(step, {}, {})
    try:
        os.unlink(places.record)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise explain_write_error(error, places.record) from error
    remove_directories(record.directories)
    return steps


class Directories:
    """Makes directories, and knows which it made: for all to read where they are the system's."""

    def __init__(self, known: Iterable[str], scope: Scope) -> None:
        self.known = set(known)
        self.mode = 0o755 if scope is Scope.SYSTEM else 0o700  # the latter as the XDG specification has it

    def plan(self, directories: Iterable[str]) -> tuple[str, ...]:
        """Return all that are ours, those that are still to be made among them."""
        for directory in directories:
            path = directory
            while not os.path.lexists(path):
                self.known.add(path)
                path = os.path.dirname(path)
        return tuple(sorted(self.known))

    def make(self, directory: str) -> None:
        """Make it with its parents. Raises ``StoreError``."""
        if os.path.isdir(directory):
            return
        self.make(os.path.dirname(directory))
        try:
            os.mkdir(directory, self.mode)
            os.chmod(directory, self.mode)
        except OSError as error:
            raise explain_write_error(error, directory) from error


def remove_directories(directories: Iterable[str], keep: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Remove those that are empty."""
    for directory in sorted(directories, reverse=True):
        if directory not in keep:
            try:
                os.rmdir(directory)
            except OSError:
                continue


def _parents(paths: Iterable[str]) -> set[str]:
    found = set()
    for each in paths:
        path = each
        while (path := os.path.dirname(path)) not in found and path != "/":
            found.add(path)
    return found
