"""Turns a fresh child process into the init of a native machine: namespaces, mounts, exec of systemd.

All of it runs after a fork and before an exec, in new namespaces that die with their init: nothing to undo.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from machinelib import syscalls
from machinelib.cgroup import enter_cgroup
from machinelib.syscalls import MountFlag, mount

NOTIFY_SOCKET = "/run/host/notify"

_NODES = {
    # /dev/console is a null device of our own: systemd sets its mode, so it must not be the host's.
    "console": (1, 3),
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "fuse": (10, 229),
    "net/tun": (10, 200),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# What root in the machine must not do to the host's kernel: modules, raw I/O, clock, LSM policy, log, audit.
_DROPPED_CAPABILITIES = (16, 17, 25, 32, 33, 34, 37)
# Not on the overlay, where a rootless overlay could not have its upper directory.
_OWN_DIRECTORIES = ("home", "root", "var/tmp", "var/lib/containers")


@dataclass(frozen=True)
class GuestPlan:
    """All that a machine's init needs to set itself up."""

    cgroup: Path
    # Lower layers of the root file system, the topmost first.
    layers: tuple[Path, ...]
    checkout: Path
    mount_point: Path
    # A directory on disk, for what the machine writes if it is to go there, or if memory cannot hold it.
    scratch: Path
    on_disk: bool
    machine_id: str
    arguments: tuple[str, ...] = ()


def run_guest(plan: GuestPlan, channel: socket.socket) -> None:
    """Become the init. Reports a notification socket, or an error, on the channel; does not return."""
    try:
        syscalls.set_parent_death_signal(signal.SIGKILL)
        if channel.recv(1) != b"g":  # the parent died before it could be known
            os._exit(1)
        os.setsid()
        enter_cgroup(plan.cgroup)
        syscalls.unshare(
            syscalls.CLONE_NEWNS
            | syscalls.CLONE_NEWUTS
            | syscalls.CLONE_NEWIPC
            | syscalls.CLONE_NEWNET
            | syscalls.CLONE_NEWCGROUP
        )
        mount("", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
        _mount_root(plan)
        _pivot()
        socket.sethostname("machine")
        _raise_loopback()
        _report_notify_socket(channel)
        _exec_systemd(plan)
    except BaseException as error:  # whatever it was, the parent is to print it
        channel.send(b"E" + f"{type(error).__name__}: {error}".encode())
    os._exit(1)


def _mount_root(plan: GuestPlan) -> None:
    base = plan.mount_point
    mount("tmpfs", str(base), "tmpfs", data="mode=0755")
    if plan.on_disk or not _keeps_attributes(base):
        mount(str(plan.scratch), str(base), flags=MountFlag.BIND)
    # Relative names from here, so that no character of a path can matter to overlay's option syntax.
    os.chdir(base)
    lower = []
    for number, layer in enumerate(plan.layers):
        name = f"lower{number}"
        os.mkdir(name)
        mount(str(layer), name, flags=MountFlag.BIND)
        lower.append(name)
    for name in ("upper", "work", "root", "own"):
        os.mkdir(name, 0o755)
    mount("overlay", "root", "overlay", data=f"lowerdir={':'.join(lower)},upperdir=upper,workdir=work")
    for number, name in enumerate(_OWN_DIRECTORIES):
        _mount_own_directory(Path("root") / name, Path("own") / str(number))
    os.chdir("root")
    _mount_kernel_file_systems()
    _mount_devices()
    Path("etc/machine-id").write_text(plan.machine_id + "\n")
    os.makedirs("checkout", exist_ok=True)
    _bind_read_only(str(plan.checkout), "checkout")


def _keeps_attributes(directory: Path) -> bool:
    """Whether user.* attributes work, which a rootless overlay needs (on tmpfs: Linux 6.6 and later)."""
    try:
        os.setxattr(directory, "user.probe", b"1")
    except OSError:
        return False
    return True


def _mount_own_directory(target: Path, own: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _copy_owned(target, own)
    mount(str(own), str(target), flags=MountFlag.BIND)


def _copy_owned(source: Path, target: Path) -> None:
    """Copy a small tree with owners and modes."""
    found = source.lstat()
    if stat.S_ISDIR(found.st_mode):
        target.mkdir()
        for child in source.iterdir():
            _copy_owned(child, target / child.name)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        target.chmod(stat.S_IMODE(found.st_mode))


def _bind_read_only(source: str, target: str) -> None:
    mount(source, target, flags=MountFlag.BIND | MountFlag.REC)
    mount("", target, flags=MountFlag.REMOUNT | MountFlag.BIND | MountFlag.RDONLY)


def _mount_kernel_file_systems() -> None:
    plain = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
    mount("tmpfs", "run", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=0755")
    mount("tmpfs", "tmp", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=1777")
    mount("proc", "proc", "proc", plain)
    mount("sysfs", "sys", "sysfs", plain)
    # What a machine writes to sysctl would reach the host; only the network's are the machine's own.
    for path in ("proc/sys", "proc/sysrq-trigger"):
        if os.path.exists(path):
            _bind_read_only(path, path)
    mount("proc/sys/net", "proc/sys/net", flags=MountFlag.BIND)
    mount("", "proc/sys/net", flags=MountFlag.REMOUNT | MountFlag.BIND)
    mount("", "sys", flags=MountFlag.REMOUNT | MountFlag.BIND | MountFlag.RDONLY | plain)
    mount("cgroup2", "sys/fs/cgroup", "cgroup2", plain)
    # The kernel lets a user namespace mount proc and sysfs only where a whole one is in sight (nspawn's way).
    os.makedirs("run/host/whole", 0o700)
    for name, kind in (("proc", "proc"), ("sys", "sysfs")):
        os.mkdir(f"run/host/whole/{name}")
        mount(kind, f"run/host/whole/{name}", kind, plain)


def _mount_devices() -> None:
    mount("tmpfs", "dev", "tmpfs", MountFlag.NOSUID, "mode=0755,size=4m")
    for name in ("pts", "shm", "mqueue", "net"):
        os.mkdir(f"dev/{name}", 0o755)
    for name, (major, minor) in _NODES.items():
        os.mknod(f"dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"dev/{name}", 0o666)
    for name, target in _LINKS.items():
        os.symlink(target, f"dev/{name}")
    mount(
        "devpts",
        "dev/pts",
        "devpts",
        MountFlag.NOSUID | MountFlag.NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    mount("tmpfs", "dev/shm", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=1777")
    mount("mqueue", "dev/mqueue", "mqueue", MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC)


def _pivot() -> None:
    # Joining our own mount namespace leads to its true root, if we came from a chroot: pivot_root would move only the
    # chroot, and nobody in the machine could make a user namespace.
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    syscalls.set_namespaces(own, syscalls.CLONE_NEWNS)
    os.fchdir(here)
    # pivot_root(".", "."): the old root ends up on top of the new one, and is let go.
    syscalls.pivot_root(".", ".")
    syscalls.unmount(".")
    os.chdir("/")
    os.close(here)
    os.close(own)
    mount("", "/", flags=MountFlag.REC | MountFlag.SHARED)


def _raise_loopback() -> None:
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, siocgifflags, request))[1]
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh22x", b"lo", flags | iff_up))


def _report_notify_socket(channel: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(NOTIFY_SOCKET)
        socket.send_fds(channel, [b"N"], [notify.fileno()])


def _exec_systemd(plan: GuestPlan) -> None:
    for number in _DROPPED_CAPABILITIES:
        syscalls.drop_bounding_capability(number)
    reset_signals()
    os.umask(0o022)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "container": "usercontainerd-machine",
        "NOTIFY_SOCKET": NOTIFY_SOCKET,
    }
    os.execve("/usr/lib/systemd/systemd", ["systemd", "--system", *plan.arguments], environment)


def reset_signals() -> None:
    """Undo what Python did to its own signals, and a shell to those of its background jobs: an exec hands them on."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
