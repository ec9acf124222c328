"""Inside a kernel machine: runs the one command that it was booted for, and reports through the work directory.

Started by the machine's systemd once the users are logged in. Output goes to files of the work directory, which the
host reads while they grow: fsync is what makes hostfs hand the bytes over.
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

_FLUSH_INTERVAL = 0.1
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
    readers, writers = zip(os.pipe(), os.pipe(), strict=True)
    outputs = (readers[0], writers[0]), (readers[1], writers[1])
    pid = os.fork()
    if pid == 0:
        _exec_command(work, arguments or (account.shell, "-l"), account, outside, scope, outputs)
    for _, writer in outputs:
        os.close(writer)
    names = {outputs[0][0]: work / "stdout", outputs[1][0]: work / "stderr"}
    _copy_outputs(names, pid)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _exec_command(
    work: Path,
    arguments: tuple[str, ...],
    account: Account,
    outside: dict[str, str],
    scope: Path,
    outputs: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    try:
        enter_cgroup(scope)
        os.dup2(os.open(work / "stdin", os.O_RDONLY), 0)
        os.dup2(outputs[0][1], 1)
        os.dup2(outputs[1][1], 2)
        become_user(account)
        os.execvpe(arguments[0], arguments, build_environment(account, outside))
    except FileNotFoundError as error:
        print(f"machine: {arguments[0]}: {error.strerror} in the machine", file=sys.stderr, flush=True)
        os._exit(127)
    except BaseException as error:
        print(f"machine: cannot run {arguments[0]}: {error}", file=sys.stderr, flush=True)
        os._exit(126)


def _copy_outputs(names: dict[int, Path], pid: int) -> None:
    """Copy pipes to files until both have ended, or the command has and nothing more comes."""
    files = {fd: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for fd, path in names.items()}
    pidfd = os.pidfd_open(pid)
    sources, dirty, flushed = {*files, pidfd}, set[int](), time.monotonic()
    while sources & files.keys():
        ended = pidfd not in sources
        readable, _, _ = select.select(sources, [], [], 0 if ended else _FLUSH_INTERVAL)
        if ended and not readable:
            break
        for fd in readable:
            data = os.read(fd, _CHUNK) if fd != pidfd else b""
            if not data:
                sources.discard(fd)
                continue
            os.write(files[fd], data)
            dirty.add(files[fd])
        if dirty and time.monotonic() - flushed > _FLUSH_INTERVAL:
            for fd in dirty:
                os.fsync(fd)
            dirty.clear()
            flushed = time.monotonic()
    for fd in files.values():
        os.fsync(fd)
        os.close(fd)
    os.close(pidfd)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
