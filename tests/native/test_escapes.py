"""Attempts to get out of a container, made from within by tests/native/probes/escapes.py: each must be refused.

So that this cannot pass for want of a proper attempt, the same program also runs where isolation was given up, and
must succeed there.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.native.probes.escapes import ATTEMPTS
from tests.support.probes import probe_ours

RUNTIMES = [path for path in ("/usr/bin/crun", "/usr/bin/pasta") if Path(path).exists()]
KEY = "usercontainerd-test-key"

# What succeeds once the filter is off, all capabilities are there, and the network is the host's.
OPENED = {
    "abstract_socket",
    "call_add_key",
    "call_io_uring_setup",
    "call_personality",
    "detach_mount_tree",
    "mount_cgroup",
    "mount_tmpfs",
    "new_mount_interface",
    "reach_host_by_127.0.0.1",
    "set_hostname",
    "unshare_cgroup",
    "unshare_ipc",
    "unshare_net",
    "unshare_ns",
    "unshare_pid",
    "unshare_uts",
}
# What even then stays closed, since the user namespace is the container's own.
NEVER = {
    "call_init_module",
    "call_reboot",
    "call_settimeofday",
    "call_swapon",
    "climb_out_of_bind",
    "climb_out_of_descriptors",
    "escape_chroot",
    "host_sockets",
    "make_block_device",
    "make_memory_device",
    "nested_root_maps_further_ids",
    "nested_root_mounts_proc",
    "nested_root_unmasks",
    "open_host_devices",
    "overwrite_runtime",
    "read_host_keyring",
    "read_secret_directly",
    "read_victim_memory",
    "real_time",
    "signal_victim",
    "take_unmapped_id",
    "trace_victim",
    "write_proc_self_oom_score_adj",
    "write_proc_sys_kernel_core_pattern",
}


@dataclass
class Host:
    """What there is to reach on the host."""

    settings: dict[str, Any]
    mounts: tuple[str, ...]
    victim: subprocess.Popen[bytes]
    secret: Path
    closed: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("host")
    secret = Path.home() / f"secret-{os.getpid()}"
    closed = directory / "closed"
    closed.mkdir()
    (closed / "file").write_text("untouched")
    (closed / "link").symlink_to("/")
    add_key()
    with ExitStack() as stack:
        secret.write_text("the host's")
        stack.callback(secret.unlink)
        service = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0usercontainerd-test-{os.getpid()}")
        abstract.listen()
        threading.Thread(target=answer, args=(service,), daemon=True).start()
        victim = subprocess.Popen(["sleep", "600"])
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        settings = {
            "victim": victim.pid,
            "port": service.getsockname()[1],
            "abstract": f"usercontainerd-test-{os.getpid()}",
            "secret": str(secret),
            "key": KEY,
        }
        yield Host(settings, (f"{closed}:/closed:ro",), victim, secret, closed)


def answer(service: socket.socket) -> None:
    while True:
        try:
            connection, _ = service.accept()
        except OSError:
            return
        connection.send(b"the host's")
        connection.close()


def add_key() -> None:
    """add_key(2): a key in the user's own keyring, which every process of the user on the host can find."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = 248 if os.uname().machine == "x86_64" else 217
    serial = libc.syscall(
        ctypes.c_long(number), b"user", KEY.encode(), b"secret", ctypes.c_long(6), ctypes.c_long(-4)
    )
    assert serial > 0, os.strerror(ctypes.get_errno())


def digest_runtimes() -> list[str]:
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in RUNTIMES]


def read_machine() -> dict[str, str]:
    """What a success would have changed."""
    files = ("/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax")
    return {"hostname": socket.gethostname(), **{path: Path(path).read_text() for path in files}}


@pytest.fixture(scope="module")
def outcomes(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    before = (digest_runtimes(), read_machine())
    found: dict[str, str] = probe_ours(
        "escapes", json.dumps(host.settings), output=tmp_path_factory.mktemp("ours"), mounts=host.mounts
    )
    assert (digest_runtimes(), read_machine()) == before
    assert host.victim.poll() is None
    assert (host.closed / "file").read_text() == "untouched"
    return found


@pytest.mark.parametrize("name", list(ATTEMPTS))
def test_attempt_is_refused(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name].startswith("refused: ")


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("call_bpf", {"EPERM"}),
        ("call_io_uring_setup", {"ENOSYS"}),
        ("call_userfaultfd", {"EPERM"}),
        ("mount_tmpfs", {"EPERM"}),
        ("unshare_ns", {"EPERM"}),
        ("trace_victim", {"ESRCH"}),
        ("signal_victim", {"ESRCH"}),
        ("read_proc_kcore", {"ENOENT", "ENODATA"}),
        ("write_sys_fs_cgroup_cgroup.procs", {"EROFS"}),
        ("write_read_only_bind", {"EROFS"}),
        ("abstract_socket", {"ECONNREFUSED"}),
        ("reach_host_by_127.0.0.1", {"ECONNREFUSED"}),
        ("host_sockets", {"ENOENT"}),
        ("read_host_keyring", {"ENOKEY"}),
        ("audit_socket", {"EINVAL"}),
    ],
)
def test_reason_of_the_refusal(outcomes: dict[str, str], name: str, reasons: set[str]) -> None:
    """For the right reason, that is, and not since the attempt itself is wrong."""
    assert outcomes[name].removeprefix("refused: ") in reasons


@pytest.fixture(scope="module")
def opened(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same where the definition gives isolation up."""
    before = (digest_runtimes(), read_machine())
    toml = 'network = "host"\n[security]\nseccomp = "unconfined"\nadd_capabilities = ["ALL"]\n'
    found: dict[str, str] = probe_ours(
        "escapes",
        json.dumps(host.settings),
        output=tmp_path_factory.mktemp("open"),
        toml=toml,
        mounts=host.mounts,
    )
    assert (digest_runtimes(), read_machine()) == before
    assert host.victim.poll() is None
    return found


@pytest.mark.parametrize("name", sorted(OPENED))
def test_attempts_are_real(opened: dict[str, str], name: str) -> None:
    assert opened[name].startswith("ESCAPED: ")


@pytest.mark.parametrize("name", sorted(NEVER))
def test_user_namespace_alone_refuses(opened: dict[str, str], name: str) -> None:
    assert opened[name].startswith("refused: ")
