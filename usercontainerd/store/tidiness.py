"""What lies in the store's directories that should not: leftovers of processes that were killed, strange files, modes.

Nothing strange is ever removed: it is somebody's. What a killed process has left is known by its name and by the
lock that nobody holds any more.
"""

from __future__ import annotations

import os
import stat
from functools import partial

from usercontainerd.base.errors import Busy, StoreError
from usercontainerd.store.findings import Finding, Severity
from usercontainerd.store.layout import DIRECTORIES, Store
from usercontainerd.store.locks import ObjectLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEMPORARY = ".new-"  # see kernel.atomicfile
_PARTIAL_AGES = (
    7  # times as long as other things that nothing needs: with a day, as pulls have it (store/partial.py)
)
_GRACE = 60  # seconds in which a temporary file may belong to a process that cannot be seen from here
_HEX = frozenset("0123456789abcdef")
# Beside the store's own: what containers keep.
_NEIGHBOURS = ("containers", "created", "volumes")


def check_directories(store: Store) -> list[Finding]:
    """Find directories that others could enter, or that are not the user's."""
    findings = []
    for name in (
        "",
        *dict.fromkeys(part for each in DIRECTORIES for part in _list_parents(each)),
        *_NEIGHBOURS,
    ):
        path = f"{store.root}/{name}".rstrip("/")
        try:
            status = os.stat(path)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            findings.append(
                Finding(
                    "directory",
                    Severity.DAMAGE,
                    "this has to be a directory",
                    path,
                    repair="move it away by hand",
                )
            )
        elif status.st_uid != os.getuid():
            owner = f"this belongs to user ID {status.st_uid}, not to you"
            findings.append(
                Finding("owner", Severity.DAMAGE, owner, path, repair="have an administrator run chown on it")
            )
        elif status.st_mode & 0o077 or status.st_mode & 0o700 != 0o700:
            mode = stat.S_IMODE(status.st_mode)
            findings.append(
                Finding(
                    "mode",
                    Severity.DAMAGE,
                    f"the mode is {mode:04o}: others can get at set-user-ID files of images"
                    if mode & 0o077
                    else f"the mode is {mode:04o}",
                    path,
                    repair="make it 0700",
                    mend=partial(os.chmod, path, 0o700),
                )
            )
    return findings


def _list_parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def check_leftovers(store: Store, *, now: float, max_age: float) -> list[Finding]:
    """Find stages without a worker, forgotten downloads, old trash, temporary files, and what is not the store's.

    ``now`` and ``max_age`` in seconds; partial downloads may be seven times as old. Trash is not mended here: it is
    deleted inside the user namespace.
    """
    findings = [
        *_check_stages(store, now, max_age),
        *_check_partials(store, now, max_age * _PARTIAL_AGES),
        *_check_trash(store, now, max_age),
    ]
    for directory, is_ours in _list_places(store):
        for name in _list(directory):
            path = f"{directory}/{name}"
            if name.startswith(TEMPORARY):
                if _is_abandoned(name, path, now, max_age):
                    what = "a killed process has left this half-written file"
                    findings.append(
                        Finding(
                            "temporary",
                            Severity.LEFTOVER,
                            what,
                            path,
                            repair="remove it",
                            mend=partial(os.unlink, path),
                        )
                    )
            elif not is_ours(name):
                findings.append(
                    Finding("foreign", Severity.NOTE, "this does not belong into the store", path)
                )
    return findings


def sweep_locks(store: Store) -> int:
    """Remove the locks of layers that are gone; return how many. Nobody notices: there is one for each layer ever."""
    removed = 0
    for name in _list(f"{store.root}/locks"):
        digits = name.removeprefix("layer-")
        if digits == name or os.path.lexists(f"{store.layers}/{digits}"):
            continue
        lock = ObjectLock(store.lock(name), wait=False)
        try:
            lock.acquire()
        except (Busy, StoreError):
            continue  # a pull is about to make the layer
        if os.path.lexists(f"{store.layers}/{digits}"):
            lock.release()
        else:
            lock.remove()
            removed += 1
    return removed


def _list_places(store: Store) -> Iterator[tuple[str, Callable[[str], bool]]]:
    tops = {each.partition("/")[0] for each in DIRECTORIES}
    yield store.root, lambda name: name in tops or name in _NEIGHBOURS or name == "format"
    yield f"{store.root}/blobs", lambda name: name in ("sha256", "sha512")
    yield f"{store.root}/blobs/sha256", lambda name: _is_hex(name, 64)
    yield f"{store.root}/blobs/sha512", lambda name: _is_hex(name, 128)
    for records in (store.images, store.indexes):
        yield records, lambda name: name.endswith(".json") and _is_digits(name.removesuffix(".json"))
    yield store.names, lambda name: name.endswith(".json")
    yield store.partial, lambda name: name.startswith(("sha256-", "sha512-")) and _is_digits(name[7:])
    yield store.layers, _is_digits
    for layer in _list(store.layers):
        if _is_digits(layer):
            yield f"{store.layers}/{layer}", lambda _: True
    yield f"{store.root}/created", lambda _: True


def _is_hex(name: str, length: int) -> bool:
    return len(name) == length and set(name) <= _HEX


def _is_digits(name: str) -> bool:
    return _is_hex(name, 64) or _is_hex(name, 128)


def _is_abandoned(name: str, path: str, now: float, max_age: float) -> bool:
    age = _age(path, now)
    try:
        os.kill(int(name.removeprefix(TEMPORARY).partition("-")[0]), 0)
    except (ValueError, ProcessLookupError):
        return age >= min(_GRACE, max_age)
    except OSError:
        pass
    return age >= max_age


def _age(path: str, now: float) -> float:
    try:
        status = os.lstat(path)
    except OSError:
        return 0.0
    return now - max(status.st_mtime, status.st_ctime)


def _check_stages(store: Store, now: float, max_age: float) -> list[Finding]:
    findings = []
    for name in _list(store.staging):
        path = f"{store.staging}/{name}"
        if _is_worked_in(path, _age(path, now) >= max_age):
            continue
        findings.append(
            Finding(
                "stage",
                Severity.LEFTOVER,
                "an operation that was killed has left this",
                path,
                repair="remove it",
                mend=partial(_discard_stage, store, name),
            )
        )
    return findings


def _is_worked_in(path: str, is_old: bool) -> bool:
    if not os.path.exists(f"{path}/lock"):
        return not is_old  # its maker is about to lock it
    try:
        with ObjectLock(f"{path}/lock", wait=False):
            return False
    except Busy:
        return True
    except StoreError:
        return not os.path.exists(path)  # gone, or the file system is read-only


def _discard_stage(store: Store, name: str) -> None:
    path = f"{store.staging}/{name}"
    target = f"{store.trash}/{name}-{os.urandom(3).hex()}"
    if not os.path.exists(f"{path}/lock"):
        os.rename(path, target)
        return
    with ObjectLock(f"{path}/lock", wait=False):
        os.rename(path, target)


def _check_partials(store: Store, now: float, max_age: float) -> list[Finding]:
    findings = []
    for name in _list(store.partial):
        path = f"{store.partial}/{name}"
        if not name.startswith(("sha256-", "sha512-")) or _age(path, now) < max_age or not _is_free(path):
            continue
        findings.append(
            Finding(
                "partial",
                Severity.LEFTOVER,
                "no pull has gone on with this partial download",
                path,
                repair="remove it",
                mend=partial(_remove_partial, path),
            )
        )
    return findings


def _is_free(path: str) -> bool:
    try:
        with ObjectLock(path, wait=False):
            return True
    except (Busy, StoreError):
        return False


def _remove_partial(path: str) -> None:
    with ObjectLock(path, wait=False):
        os.unlink(path)


def _check_trash(store: Store, now: float, max_age: float) -> list[Finding]:
    names = [name for name in _list(store.trash) if _age(f"{store.trash}/{name}", now) >= max_age]
    if not names:
        return []
    what = f"{len(names)} thing{'s' * (len(names) > 1)} that should be deleted by now"
    return [Finding("trash", Severity.LEFTOVER, what, store.trash, repair="delete what is in it")]


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
