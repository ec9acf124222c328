"""Inside a kernel machine: runs the one command that it was booted for, and reports through the work directory.

Started by the machine's systemd once the users are logged in. Output goes to files of the work directory, which the
host reads while they grow: fsync is what makes hostfs hand the bytes over. Input comes the other way.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from machinelib.cgroup import enter_cgroup
from machinelib.session import Account, become_user, build_environment, make_scope, read_account

_POLL_INTERVAL = 0.1
_SETTLE = (
    "systemctl start user@1000.service user@1001.service",
    "systemctl is-system-running --wait",
    "runuser -u alice -- env XDG_RUNTIME_DIR=/run/user/1000 systemctl --user is-system-running --wait",
)
_CHUNK = 1 << 16


def main(work: Path) -> int:
    """Run the job that the work directory holds."""
    job = json.loads((work / "job.json").read_text())
    account = read_account(Path("/"), job["user"])
    for command in _SETTLE:
        subprocess.run(command.split(), stdout=subprocess.DEVNULL, check=False)
    _write_durably(work / "started", "")
    status = _run_command(work, tuple(job["arguments"]), account, job["environment"])
    _write_durably(work / "status.new", str(status))
    (work / "status.new").rename(work / "status")
    return 0


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _run_command(work: Path, arguments: tuple[str, ...], account: Account, outside: dict[str, str]) -> int:
    scope = make_scope(Path("/sys/fs/cgroup"), account)
    pipes = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if pid == 0:
        inner = (pipes[0][0], pipes[1][1], pipes[2][1])
        _exec_command(arguments or (account.shell, "-l"), account, outside, scope, inner)
    for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
        os.close(fd)
    outputs = {pipes[1][0]: work / "stdout", pipes[2][0]: work / "stderr"}
    _copy_streams(_Input(work, pipes[0][1]), outputs, pid)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _exec_command(
    arguments: tuple[str, ...],
    account: Account,
    outside: dict[str, str],
    scope: Path,
    streams: tuple[int, int, int],
) -> None:
    try:
        for target, source in enumerate(streams):
            os.dup2(source, target)
        enter_cgroup(scope)
        become_user(account)
        os.execvpe(arguments[0], arguments, build_environment(account, outside))
    except FileNotFoundError as error:
        print(f"machine: {arguments[0]}: {error.strerror} in the machine", file=sys.stderr, flush=True)
        os._exit(127)
    except BaseException as error:
        print(f"machine: cannot run {arguments[0]}: {error}", file=sys.stderr, flush=True)
        os._exit(126)


class _Input:
    """The command's stdin: comes as numbered files, of which an empty one is the end."""

    def __init__(self, work: Path, pipe: int) -> None:
        self._work = work
        self._pipe = pipe
        self._count = 0
        self._pending = b""
        os.set_blocking(pipe, False)

    def feed(self) -> None:
        """Hand on what has come and what the pipe takes, without waiting for either."""
        try:
            while self._pipe >= 0:
                if self._pending:
                    self._pending = self._pending[os.write(self._pipe, self._pending) :]
                    continue
                path = self._work / f"stdin.{self._count}"
                self._pending = path.read_bytes()
                path.unlink()
                self._count += 1
                if not self._pending:
                    self._close()
        except (BlockingIOError, FileNotFoundError):
            pass
        except BrokenPipeError:
            self._close()

    def _close(self) -> None:
        os.close(self._pipe)
        self._pipe = -1

    @property
    def sinks(self) -> list[int]:
        """What to wait for, to become writable."""
        return [self._pipe] if self._pending else []


def _copy_streams(stdin: _Input, outputs: dict[int, Path], pid: int) -> None:
    """Copy the command's streams until the outputs have ended, or it has and nothing more comes."""
    files = {fd: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for fd, path in outputs.items()}
    pidfd = os.pidfd_open(pid)
    sources, dirty, flushed = {*files, pidfd}, set[int](), time.monotonic()
    while sources & files.keys():
        stdin.feed()
        ended = pidfd not in sources
        readable, _, _ = select.select(sources, stdin.sinks, [], 0 if ended else _POLL_INTERVAL)
        if ended and not readable:
            break
        for fd in readable:
            data = os.read(fd, _CHUNK) if fd != pidfd else b""
            if not data:
                sources.discard(fd)
                continue
            os.write(files[fd], data)
            dirty.add(files[fd])
        if dirty and time.monotonic() - flushed > _POLL_INTERVAL:
            _flush_files(dirty)
            flushed = time.monotonic()
    _flush_files(set(files.values()))


def _flush_files(files: set[int]) -> None:
    for fd in files:
        os.fsync(fd)
    files.clear()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
