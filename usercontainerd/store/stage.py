"""Where a pull works: a directory of its own in ``tmp/``, locked as long as the pull or its worker lives."""

from __future__ import annotations

import os

from usercontainerd.base.errors import Busy, StoreError
from usercontainerd.kernel.atomicfile import explain_write_error
from usercontainerd.store.layout import Store
from usercontainerd.store.locks import ObjectLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from usercontainerd.store.worker import Worker


class Stage:
    """A directory of one pull in ``tmp/``, locked as long as somebody works in it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = ""
        self._lock: ObjectLock | None = None

    @property
    def path(self) -> str:
        """The directory."""
        return f"{self._store.staging}/{self.name}"

    def __enter__(self) -> Self:
        while True:
            self.name = f"pull-{os.getpid()}-{os.urandom(6).hex()}"
            try:
                os.mkdir(self.path, 0o700)
            except OSError as error:
                raise explain_write_error(error, self.path) from error
            lock = ObjectLock(f"{self.path}/lock", wait=False)
            try:
                lock.acquire()
            except Busy:
                continue  # a sweep was faster and takes it for an old one
            except StoreError:
                if os.path.exists(self.path):
                    raise
                continue
            if os.path.exists(f"{self.path}/lock"):
                self._lock = lock
                return self
            lock.release()

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def hand_to(self, worker: Worker) -> None:
        """Let the worker share the lock, and delete what is left when it ends."""
        assert self._lock is not None  # noqa: S101
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        staging, trash = os.open(self._store.staging, flags), os.open(self._store.trash, flags)
        try:
            worker.stage(self.name, staging, trash, self._lock.fileno())
        finally:
            os.close(staging)
            os.close(trash)

    def make_directory(self, name: str) -> str:
        """Make a directory for a layer, with ``diff`` in it; return its path."""
        path = f"{self.path}/{name}"
        os.mkdir(path, 0o700)
        os.mkdir(f"{path}/diff", 0o755)
        os.chmod(f"{path}/diff", 0o755)  # noqa: S103 - the root directory of an image, whatever the umask
        return path


def sweep_stages(store: Store) -> list[str]:
    """Move what killed processes have left in ``tmp/`` to the trash; return the names."""
    swept = []
    for name in os.listdir(store.staging):
        path = f"{store.staging}/{name}"
        lock = ObjectLock(f"{path}/lock", wait=False)
        try:
            if not os.path.exists(f"{path}/lock") and os.path.isdir(path):
                # Made this very moment, or its maker was killed between two system calls: one of us finds
                # out.
                os.rmdir(path)
                continue
            with lock:
                os.rename(path, f"{store.trash}/{name}")
            swept.append(name)
        except (Busy, StoreError, OSError):
            continue
    return swept
