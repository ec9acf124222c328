"""The main job on a kernel of the machine's own: a page through pasta, a restart, and limits that cannot be raised."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tests.support.containers import BUSYBOX, Container, fetch, wait_until
from tests.support.probes import list_mounts, probe_ours, render_definition

Make = Callable[..., Container]


def test_page_restart_and_log(container: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    web = container(
        f'image = "localhost:5000/web:latest"\nports = ["127.0.0.1:{port}:8080"]\nrestart = "on-failure"\n'
        '[resources]\nmemory = "64M"\npids = 50\n'
    )
    web.start()
    assert "It works" in fetch(port)
    first = web.pid
    maps = Path(f"/proc/{first}/uid_map").read_text().split()
    assert maps[:3] == ["0", str(os.getuid()), "1"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: web.show("NRestarts") == "1" and web.show("ActiveState") == "active", "it restarts")
    assert "It works" in fetch(port)
    assert "Started" in web.journal()
    web.stop()
    assert web.show("ActiveState") == "inactive"


def test_exit_status(container: Make) -> None:
    one = container(f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "exit 7"]\nnetwork = "none"\n')
    one.start()
    one.finish()
    assert (one.show("ExecMainStatus"), one.show("Result")) == ("7", "exit-code")


def test_isolation_on_this_kernel(tmp_path: Path) -> None:
    """What the kernels of the other tests may lack: kcore, sysrq, memory and tasks of the cgroup."""
    found = probe_ours("facts", output=tmp_path / "out", toml='[resources]\nmemory = "256M"\npids = 50\n')
    assert found["status"]["Seccomp"] == "2"
    assert found["hidden"]["/proc/kcore"] in ("0", "ENOENT", "EPERM")
    assert found["writable"]["/proc/sysrq-trigger"] in ("EROFS", "ENOENT", "EACCES")
    for name in ("memory.max", "cgroup.procs", "cgroup.kill", "cgroup.subtree_control"):
        assert found["writable"][f"/sys/fs/cgroup/{name}"] == "EROFS", name
    assert found["writable"]["/proc/sys/kernel/core_pattern"] != "fine"


def test_limits_cannot_be_raised_from_within(container: Make, tmp_path: Path) -> None:
    """By way of a nested user namespace the own cgroup can be mounted and written: that of the unit still holds."""
    output = tmp_path / "out"
    script = (
        "import os, sys; sys.path[:0] = ['/']\n"
        "from probes.attempts import become_nested_root, mount, unshare\n"
        "become_nested_root(); unshare('cgroup'); mount('cgroup2', '/tmp', 'cgroup2')\n"
        "for name in ('memory.max', 'memory.high', 'memory.swap.max', 'pids.max'):\n"
        "    try: open('/tmp/' + name, 'w').write('max')\n"
        "    except OSError as error: print(name, error)\n"
        "open('/out/limits', 'w').write(open('/tmp/memory.max').read())\n"
        "open('/out/mounted', 'w').write(' '.join(os.listdir('/tmp')))\n"
        "x = bytearray(os.urandom(1 << 20) * 200)\n"
        "open('/out/ate', 'w').close()\n"
    )
    command = ["/usr/bin/python3", "-ISBc", script]
    text = render_definition(
        command, list_mounts(output), 'network = "none"\n[resources]\nmemory = "48M"\nswap = 0\n'
    )
    one = container(text)
    one.start()
    one.finish()
    assert (output / "mounted").exists(), one.journal()
    assert not (output / "ate").exists()
    assert one.show("Result") == "oom-kill"


def test_systemd_within(container: Make, tmp_path: Path) -> None:
    """A whole systemd as the command: it comes up, has its controllers, and ends when it is told to."""
    output = tmp_path / "out"
    done = tmp_path / "done.service"
    done.write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n"
        "ExecStart=/usr/bin/sh -c 'cat /sys/fs/cgroup/cgroup.subtree_control > /out/controllers; "
        "cat /proc/self/cgroup > /out/cgroup; touch /out/done'\n"
    )
    mounts = [*list_mounts(output), f"{done}:/etc/systemd/system/done.service:ro"]
    command = ["/usr/lib/systemd/systemd", "--unit=done.service"]
    text = render_definition(
        command, mounts, 'stop_signal = "SIGRTMIN+3"\nstop_timeout = 10\n[resources]\npids = 100\n'
    )
    one = container(text)
    one.start()
    wait_until((output / "done").exists, "its unit has run")
    assert "0::/system.slice/done.service" in (output / "cgroup").read_text()
    assert "pids" in (output / "controllers").read_text()
    one.stop()
    assert one.show("ActiveState") == "inactive"
