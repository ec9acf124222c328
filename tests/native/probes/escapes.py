"""Runs inside a container, tries to get out of it, and writes down how each attempt ended, as JSON.

Each attempt is a function that raises ``OSError`` when it is refused and returns a text when it got somewhere. It
runs in a child of its own, so that a half success cannot help the next. ``escapes.py OUTPUT SETTINGS``: SETTINGS is
JSON with what the host knows: a process (``victim``), a port (``port``), an abstract socket (``abstract``), a file
(``secret``).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

ATTEMPTS: dict[str, Callable[[dict[str, Any]], str]] = {}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ptrace.restype = ctypes.c_long

X86 = os.uname().machine == "x86_64"
# Numbers below 424 differ between architectures: x86-64, and the generic table of all newer ones.
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "settimeofday": (164, 170),
    "swapon": (167, 224),
    "userfaultfd": (323, 282),
}
NEW = {"ns": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000}
NEW |= {"pid": 0x20000000, "net": 0x40000000, "time": 0x80}
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MNT_DETACH = 1, 32, 4096, 16384, 2


def attempt(function: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    ATTEMPTS[function.__name__] = function
    return function


def check(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call(name: str, *arguments: int | bytes | None) -> int:
    number = NUMBERS[name][0 if X86 else 1]
    wrapped = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return check(_libc.syscall(ctypes.c_long(number), *wrapped))


def mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))


def unshare(*names: str) -> None:
    flags = 0
    for name in names:
        flags |= NEW[name]
    check(_libc.unshare(ctypes.c_int(flags)))


def write_to(path: str, text: str) -> str:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    return f"wrote to {path}"


def read_from(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        data = os.read(fd, 4096)
    finally:
        os.close(fd)
    if not data.strip(b"\0\n"):
        raise OSError(errno.ENODATA, "nothing in it")
    return f"read {len(data)} bytes of {path}"


def become_nested_root() -> None:
    """A user namespace inside the container, where this process has every capability."""
    uid, gid = os.getuid(), os.getgid()
    unshare("user", "ns")
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        write_to(f"/proc/self/{file}", text)


# Mounts and namespaces.


@attempt
def mount_tmpfs(_s: dict[str, Any]) -> str:
    mount("tmpfs", "/mnt", "tmpfs")
    return "mounted"


@attempt
def mount_proc_afresh(_s: dict[str, Any]) -> str:
    mount("proc", "/tmp", "proc")
    return "mounted"


@attempt
def mount_cgroup(_s: dict[str, Any]) -> str:
    mount("cgroup2", "/tmp", "cgroup2")
    return "mounted"


@attempt
def unmask_by_umount(_s: dict[str, Any]) -> str:
    check(_libc.umount2(b"/proc/keys", ctypes.c_int(MNT_DETACH)))
    return "unmounted"


@attempt
def remount_sys_writable(_s: dict[str, Any]) -> str:
    mount("none", "/sys", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def remount_cgroup_writable(_s: dict[str, Any]) -> str:
    mount("none", "/sys/fs/cgroup", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def new_mount_interface(_s: dict[str, Any]) -> str:
    call("fsopen", b"tmpfs", 0)
    return "fsopen worked"


@attempt
def detach_mount_tree(_s: dict[str, Any]) -> str:
    call("open_tree", -100, b"/", 1)
    return "open_tree(CLONE) worked"


@attempt
def pivot_root(_s: dict[str, Any]) -> str:
    call("pivot_root", b".", b".")
    return "pivoted"


def _unshare_one(name: str) -> Callable[[dict[str, Any]], str]:
    def run(_s: dict[str, Any]) -> str:
        unshare(name)
        return f"has a new {name} namespace"

    return run


for _name in sorted(set(NEW) - {"user"}):
    ATTEMPTS[f"unshare_{_name}"] = _unshare_one(_name)


@attempt
def join_namespaces_of_init(_s: dict[str, Any]) -> str:
    for name in ("user", "mnt", "pid", "net", "cgroup"):
        try:
            check(_libc.setns(os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0))
        except OSError as error:
            refusal = error
        else:
            return f"joined {name}"
    raise refusal


@attempt
def set_hostname(_s: dict[str, Any]) -> str:
    socket.sethostname("escaped")
    return "renamed"


# A root of a user namespace within: the profile allows it, as Podman's does. It must gain nothing.


@attempt
def nested_root_unmasks(_s: dict[str, Any]) -> str:
    become_nested_root()
    check(_libc.umount2(b"/proc/keys", ctypes.c_int(MNT_DETACH)))
    return "unmounted"


@attempt
def nested_root_remounts_sys(_s: dict[str, Any]) -> str:
    become_nested_root()
    mount("none", "/sys", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def nested_root_remounts_proc_sys(_s: dict[str, Any]) -> str:
    become_nested_root()
    mount("none", "/proc/sys", "none", MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt
def nested_root_mounts_proc(_s: dict[str, Any]) -> str:
    become_nested_root()
    unshare("pid")
    if (pid := os.fork()) == 0:
        try:
            mount("proc", "/tmp", "proc")
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, os.strerror(status))
    return "mounted a proc without masks"


@attempt
def nested_root_mounts_sysfs(_s: dict[str, Any]) -> str:
    become_nested_root()
    unshare("net")
    mount("sysfs", "/tmp", "sysfs")
    return "mounted"


@attempt
def nested_root_binds_below_mask(_s: dict[str, Any]) -> str:
    become_nested_root()
    mount("/proc", "/tmp", "none", MS_BIND)  # not MS_REC: what is mounted on it would stay behind
    return read_from("/tmp/keys")


@attempt
def nested_root_mounts_device(_s: dict[str, Any]) -> str:
    become_nested_root()
    mount("tmpfs", "/tmp", "tmpfs")
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "made a device node"


# Devices and the kernel's own files.


@attempt
def make_block_device(_s: dict[str, Any]) -> str:
    os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    return "made"


@attempt
def make_memory_device(_s: dict[str, Any]) -> str:
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "made"


@attempt
def open_host_devices(_s: dict[str, Any]) -> str:
    for name in ("mem", "kmsg", "fuse", "net/tun", "console", "loop-control", "kvm", "vda", "sda", "ubda"):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            refusal = error
        else:
            return f"opened {name}"
    raise refusal


def _read_one(path: str) -> Callable[[dict[str, Any]], str]:
    return lambda _s: read_from(path)


def _write_one(path: str, text: str) -> Callable[[dict[str, Any]], str]:
    return lambda _s: write_to(path, text)


for _path in (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/interrupts",
    "/proc/1/mem",
):
    ATTEMPTS[f"read_{_path[1:].replace('/', '_')}"] = _read_one(_path)
for _path, _text in (
    ("/proc/sys/kernel/core_pattern", "|/tmp/evil"),
    ("/proc/sys/kernel/modprobe", "/tmp/evil"),
    ("/proc/sys/kernel/hostname", "evil"),
    ("/proc/sys/kernel/shmmax", "1"),
    ("/proc/sys/vm/panic_on_oom", "1"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/tmp/evil:"),
    ("/proc/sysrq-trigger", "h"),
    ("/sys/kernel/uevent_helper", "/tmp/evil"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    ("/sys/fs/cgroup/cgroup.procs", "1"),
    ("/sys/fs/cgroup/cgroup.subtree_control", "+memory"),
    ("/sys/fs/cgroup/cgroup.kill", "1"),
    ("/sys/fs/cgroup/memory.max", "max"),
    ("/sys/fs/cgroup/pids.max", "max"),
    ("/sys/fs/cgroup/../cgroup.procs", "1"),
    ("/proc/self/oom_score_adj", "-1000"),
):
    ATTEMPTS[f"write_{_path[1:].replace('/', '_')}"] = _write_one(_path, _text)


@attempt
def make_cgroup(_s: dict[str, Any]) -> str:
    os.mkdir("/sys/fs/cgroup/evil")
    return "made"


@attempt
def see_cgroup_above(_s: dict[str, Any]) -> str:
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = next(line for line in file if line.startswith("0::")).strip()
    if own == "0::/":
        raise OSError(errno.EPERM, "the namespace's root")
    return own


# Files of the host.


@attempt
def escape_chroot(settings: dict[str, Any]) -> str:
    """The classic: a directory outside a second chroot, then up and up."""
    outside = os.open("/", os.O_RDONLY)
    os.mkdir("/tmp/jail", 0o755)
    os.chroot("/tmp/jail")
    os.fchdir(outside)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return read_from(settings["secret"])


@attempt
def climb_out_of_descriptors(settings: dict[str, Any]) -> str:
    refusal = OSError(errno.ENOENT, "nothing inherited leads out")
    for name in os.listdir("/proc/self/fd"):
        for way in (f"/proc/self/fd/{name}", f"/proc/1/fd/{name}"):
            for up in range(12):
                try:
                    return read_from(way + "/.." * up + settings["secret"])
                except OSError as error:
                    refusal = error
    raise refusal


@attempt
def read_secret_directly(settings: dict[str, Any]) -> str:
    for prefix in ("", "/proc/1/root", "/proc/1/cwd/../../../../../..", "/proc/self/cwd/../../../../../.."):
        try:
            return read_from(prefix + settings["secret"])
        except OSError as error:
            refusal = error
    raise refusal


@attempt
def open_by_handle(_s: dict[str, Any]) -> str:
    """ "Shocker": a handle of inode 2 of the file system that a host directory is mounted from."""
    handle = struct.pack("IiQ", 8, 1, 2)
    fd = os.open("/probes", os.O_RDONLY)
    call("open_by_handle_at", fd, handle, os.O_RDONLY)
    return "opened"


@attempt
def write_read_only_bind(_s: dict[str, Any]) -> str:
    return write_to("/probes/escapes.py", "#")


@attempt
def overwrite_runtime(_s: dict[str, Any]) -> str:
    """What the container's first program was started by (CVE-2019-5736)."""
    for path in ("/proc/1/exe", "/proc/self/exe"):
        try:
            fd = os.open(path, os.O_WRONLY)
        except OSError as error:
            refusal = error
        else:
            os.close(fd)
            return f"opened {path} for writing"
    raise refusal


@attempt
def host_sockets(_s: dict[str, Any]) -> str:
    for path in (
        "/run/user/1000/bus",
        "/run/user/1000/systemd/private",
        "/run/user/1000/systemd/notify",
        "/run/dbus/system_bus_socket",
        "/run/systemd/notify",
        "/run/systemd/journal/socket",
        "/run/systemd/private",
        "/run/user/1000/podman/podman.sock",
        os.environ.get("NOTIFY_SOCKET", "/run/usercontainer-notify"),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(path)
            except OSError as error:
                refusal = error
            else:
                return f"connected to {path}"
    raise refusal


# Processes of the host.


@attempt
def signal_victim(settings: dict[str, Any]) -> str:
    os.kill(settings["victim"], signal.SIGKILL)
    return "killed"


@attempt
def trace_victim(settings: dict[str, Any]) -> str:
    check(_libc.ptrace(ctypes.c_long(16), ctypes.c_long(settings["victim"]), None, None))
    return "attached"


@attempt
def read_victim_memory(settings: dict[str, Any]) -> str:
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(buffer), 16)
    call("process_vm_readv", settings["victim"], vector, 1, vector, 1, 0)
    return "read"


@attempt
def open_victim(settings: dict[str, Any]) -> str:
    call("pidfd_open", settings["victim"], 0)
    return "opened"


@attempt
def see_other_processes(_s: dict[str, Any]) -> str:
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in (1, os.getpid(), os.getppid()):
            with open(f"/proc/{name}/comm", encoding="ascii") as file:
                return file.read()
    raise OSError(errno.ESRCH, "only its own")


# The network of the host.


def connect(address: tuple[str, int]) -> str:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1.5)
        client.connect(address)
        data = client.recv(100)
    if not data:
        raise OSError(errno.ECONNRESET, "closed")
    return f"reached {address}: {data!r}"


def _connect_one(address: str) -> Callable[[dict[str, Any]], str]:
    return lambda settings: connect((address, settings["port"]))


for _address in ("127.0.0.1", "127.0.1.1", "169.254.1.1", "169.254.1.2", "192.0.2.1", "192.0.2.10", "::1"):
    ATTEMPTS[f"reach_host_by_{_address}"] = _connect_one(_address)


@attempt
def abstract_socket(settings: dict[str, Any]) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + settings["abstract"])
        return "connected"


@attempt
def raw_socket(_s: dict[str, Any]) -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "opened"


@attempt
def packet_socket(_s: dict[str, Any]) -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return "opened"


@attempt
def audit_socket(_s: dict[str, Any]) -> str:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
    return "opened"


@attempt
def change_addresses(_s: dict[str, Any]) -> str:
    """RTM_NEWADDR 10.9.8.7/32 on the loopback interface."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        body = struct.pack("BBBBi", 2, 32, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes((10, 9, 8, 7)))
        netlink.send(struct.pack("IHHII", 16 + len(body), 20, 5, 1, 0) + body)
        answer = netlink.recv(4096)
    number = -struct.unpack_from("i", answer, 16)[0]
    if number:
        raise OSError(number, os.strerror(number))
    return "changed"


# System calls that the profile keeps away.

for _name, _arguments in {
    "acct": (b"/tmp/accounts",),
    "add_key": (b"user", b"x", b"y", 1, -3),
    "bpf": (0, None, 0),
    "clock_settime": (0, b"\0" * 16),
    "delete_module": (b"loop", 0),
    "init_module": (b"", 0, b""),
    "io_uring_setup": (1, b"\0" * 128),
    "kcmp": (1, 1, 0, 0, 0),
    "kexec_load": (0, 0, None, 0),
    "perf_event_open": (b"\0" * 128, 0, -1, -1, 0),
    "personality": (0x40000,),
    "quotactl": (0, None, 0, None),
    "reboot": (0xFEE1DEAD, 672274793, 0x89ABCDEF, None),
    "request_key": (b"user", b"x", None, 0),
    "settimeofday": (b"\0" * 16, None),
    "swapon": (b"/tmp/swap", 0),
    "userfaultfd": (0,),
}.items():

    def _call_one(name: str, arguments: tuple[Any, ...]) -> Callable[[dict[str, Any]], str]:
        return lambda _s: f"returned {call(name, *arguments)}"

    ATTEMPTS[f"call_{_name}"] = _call_one(_name, _arguments)


@attempt
def read_host_keyring(settings: dict[str, Any]) -> str:
    """KEYCTL_SEARCH for a key of the host's session in every special keyring."""
    for ring in (-1, -2, -3, -4, -5):
        try:
            serial = call("keyctl", 10, ring, b"user", settings["key"].encode(), 0)
        except OSError as error:
            refusal = error
        else:
            return f"found key {serial}"
    raise refusal


# Privileges.


@attempt
def gain_capabilities(_s: dict[str, Any]) -> str:
    header = struct.pack("Ii", 0x20080522, 0)
    data = struct.pack("IIIIII", *([0xFFFFFFFF] * 6))
    check(_libc.capset(header, data))
    return "has all"


@attempt
def take_unmapped_id(_s: dict[str, Any]) -> str:
    os.setresuid(70000, 70000, 70000)
    return "is 70000"


@attempt
def raise_limit(_s: dict[str, Any]) -> str:
    resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "raised"


@attempt
def raise_priority(_s: dict[str, Any]) -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    return "raised"


@attempt
def real_time(_s: dict[str, Any]) -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    return "is real-time"


@attempt
def real_time_io(_s: dict[str, Any]) -> str:
    call("ioprio_set", 1, 0, 1 << 13)
    return "is real-time"


def run_attempt(function: Callable[[dict[str, Any]], str], settings: dict[str, Any]) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            outcome = "ESCAPED: " + function(settings)
        except OSError as error:
            outcome = f"refused: {errno.errorcode.get(error.errno or 0, str(error))}"
        except BaseException as error:
            outcome = f"broken: {error!r}"
        os.write(writer, outcome.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        outcome = file.read().decode()
    status = os.waitpid(pid, 0)[1]
    return outcome or f"refused: signal {os.WTERMSIG(status)}"


if __name__ == "__main__":
    known = json.loads(sys.argv[2])
    outcomes = {name: run_attempt(function, known) for name, function in ATTEMPTS.items()}
    with open(sys.argv[1], "w", encoding="utf-8") as output:
        json.dump(outcomes, output)
