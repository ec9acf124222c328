"""What a container leaves behind when it ends, and how it is put away: at stop, and again at the next start.

Everything here is safe to repeat and to interrupt: renames first, deletion after.
"""

from __future__ import annotations

import posix as os

from usercontainerd.base.names import runtime_id
from usercontainerd.kernel.trees import make_private_directories, remove_file, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from usercontainerd.base.paths import Paths


def discard_runtime_state(paths: Paths, name: str) -> None:
    """Forget crun's state of the container; only for a container of which nothing runs any more."""
    remove_tree(f"{paths.crun_root}/{runtime_id(name)}")


def record_exit(paths: Paths, name: str, environment: Mapping[str, str]) -> float | None:
    """Keep how the run ended, from the environment that systemd gives to ``ExecStopPost=``.

    Of a container whose definition is gone nothing is kept: the next one of that name is another container. Returns
    how many seconds the run lasted, None if it never came to run or nothing is kept.
    """
    import time

    from usercontainerd.runtime.summary import exit_file, read_summary, render_exit

    pid_file = f"{paths.bundle(name)}/pid"
    try:
        started = os.stat(pid_file).st_mtime  # crun has written it when it made the container
        os.unlink(pid_file)
    except FileNotFoundError:
        started = 0.0  # it never came to run
    data, finished = paths.container_data(name), time.time()
    summary = read_summary(f"{paths.bundle(name)}/summary")
    if (
        summary is not None
        and summary.definition
        and not os.access(summary.definition, os.F_OK, follow_symlinks=False)
    ):
        remove_file(exit_file(data))
        return None
    try:
        with open(f"{exit_file(data)}.new", "w", encoding="utf-8") as file:
            file.write(render_exit(environment, started, finished))
        os.rename(f"{exit_file(data)}.new", exit_file(data))
    except OSError:
        pass  # only a list's status column is poorer
    return finished - started if started else None


def layer_directory(data: str) -> str:
    """The writable layer below a container's data directory; holds overlayfs's ``upper`` and ``work``."""
    return f"{data}/layer"


def layer_lock(data: str) -> str:
    """The file to lock, exclusively, by whoever writes to a layer while nothing runs on it; shared by a start."""
    return f"{data}/lock"


def trash_directory(paths: Paths) -> str:
    """Where things wait for their deletion, on the file system of the store."""
    return f"{paths.data}/trash"


def discard_layer(paths: Paths, name: str) -> str | None:
    """Move the writable layer into the trash; return its place there, or None if there was none."""
    layer = layer_directory(paths.container_data(name))
    trash = trash_directory(paths)
    target = f"{trash}/layer-{os.getpid()}-{os.urandom(6).hex()}"
    for _attempt in range(2):
        try:
            os.rename(layer, target)
            return target
        except FileNotFoundError:
            if not os.access(layer, os.F_OK, follow_symlinks=False):
                return None
            make_private_directories(trash)
    return None
