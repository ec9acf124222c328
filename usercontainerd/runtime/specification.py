"""config.json: the OCI runtime specification's description of one container, from its definition and image. Pure."""

from __future__ import annotations

from usercontainerd.base.records import dataclass
from usercontainerd.definition.model import Definition, Mount, MountType, Network, Notify
from usercontainerd.oci.image import ImageConfiguration
from usercontainerd.runtime.capabilities import plan_capabilities
from usercontainerd.runtime.identity import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_TARGET = "/run/usercontainer-init"
NOTIFY_TARGET = "/run/usercontainer-notify"

# What Podman masks and makes read-only (containers/common, pkg/config; runtime-spec config-linux.md).
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
# With the host's network its /sys is bound with all that is mounted there, and those mounts are not read-only.
HOST_MASKED_PATHS = ("/sys/kernel", "/sys/fs/bpf", "/sys/fs/fuse/connections", "/sys/fs/pstore")
READ_ONLY_PATHS = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# Podman's --systemd=true: commands that are an init system, which needs a writable cgroup and tmpfs on /run.
INIT_SYSTEMS = (
    "/sbin/init",
    "/usr/sbin/init",
    "/usr/local/sbin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
)


@dataclass(frozen=True)
class HostFiles:
    """Absolute host paths of what is bound into the container."""

    bundle: str
    init: str | None = None
    notify_socket: str | None = None
    volumes: tuple[tuple[str, str], ...] = ()  # (target, directory)


def plan_arguments(definition: Definition, image: ImageConfiguration) -> tuple[str, ...]:
    """Combine entrypoint and command as docker does: an own entrypoint drops the image's command."""
    entrypoint = image.entrypoint if definition.entrypoint is None else definition.entrypoint
    command = definition.command
    if command is None and definition.entrypoint is None:
        command = image.command
    return (*(entrypoint or ()), *(command or ()))


def plan_environment(
    definition: Definition, image: ImageConfiguration, files: tuple[tuple[str, str], ...], identity: Identity
) -> list[str]:
    """Merge, later over earlier: defaults, the image, environment files, the definition."""
    merged = {"PATH": DEFAULT_PATH, "container": "usercontainerd", "HOSTNAME": plan_hostname(definition)}
    if definition.terminal:
        merged["TERM"] = "xterm"
    merged["HOME"] = identity.home
    merged.update(image.environment)
    merged.update(files)
    merged.update(definition.environment)
    if definition.notify is Notify.CONTAINER:
        merged["NOTIFY_SOCKET"] = NOTIFY_TARGET
    return [f"{name}={value}" for name, value in merged.items()]


def plan_hostname(definition: Definition) -> str:
    """The definition's host name, or the container's name made into one (RFC 1123: letters, digits, hyphens)."""
    if definition.hostname:
        return definition.hostname
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in definition.name)
    return cleaned.strip(".-")[:63] or "container"


def plan_exec_process(process: dict[str, Any]) -> dict[str, Any]:
    """What a command that is run in the container later has from its init: all but arguments and terminal."""
    return {key: value for key, value in process.items() if key not in ("args", "terminal")}


def is_init_system(arguments: tuple[str, ...]) -> bool:
    """Tell whether the command is systemd or another init, by the names that Podman knows."""
    return bool(arguments) and (arguments[0] in INIT_SYSTEMS or arguments[0].rpartition("/")[2] == "systemd")


def build_specification(
    definition: Definition,
    image: ImageConfiguration,
    *,
    identity: Identity,
    files: HostFiles,
    file_environment: tuple[tuple[str, str], ...] = (),
    seccomp: dict[str, Any] | None = None,
    group_five: bool = True,
) -> dict[str, Any]:
    """Return config.json as a dictionary. ``group_five``: the ID map has GID 5 (tty) for /dev/pts."""
    arguments = plan_arguments(definition, image)
    security = definition.security
    init_system = is_init_system(arguments)
    with_init = (INIT_TARGET, "--") if definition.init and files.init else ()
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": definition.terminal,
            "user": {
                "uid": identity.uid,
                "gid": identity.gid,
                "additionalGids": list(identity.groups),
                "umask": 0o022,
            },
            "args": [*with_init, *arguments],
            "env": plan_environment(definition, image, file_environment, identity),
            "cwd": definition.working_directory or image.working_directory or "/",
            "capabilities": plan_capabilities(
                security.add_capabilities, security.drop_capabilities, root=identity.uid == 0
            ),
            "noNewPrivileges": security.no_new_privileges,
        },
        "root": {"path": "rootfs", "readonly": security.read_only},
        "hostname": plan_hostname(definition),
        "mounts": build_mounts(definition, files, init_system=init_system, group_five=group_five),
        "annotations": {
            "org.opencontainers.image.ref.name": definition.image,
            **dict(definition.annotations),
        },
        "linux": {
            "namespaces": [{"type": kind} for kind in plan_namespaces(definition.network)],
            "maskedPaths": [
                *MASKED_PATHS,
                *(HOST_MASKED_PATHS if definition.network is Network.HOST else ()),
            ],
            "readonlyPaths": list(READ_ONLY_PATHS),
            # Pings without a capability, as in Podman. pasta's namespace is not crun's: the launcher writes it there.
            **(
                {"sysctl": {"net.ipv4.ping_group_range": "0 0"}} if definition.network is Network.NONE else {}
            ),
            **({} if seccomp is None else {"seccomp": seccomp}),
        },
    }


def plan_namespaces(network: Network) -> tuple[str, ...]:
    """The namespaces that crun makes. The user namespace is there already; pasta's network namespace too."""
    own = ("pid", "ipc", "uts", "mount", "cgroup")
    return (*own, "network") if network is Network.NONE else own


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def build_mounts(
    definition: Definition, files: HostFiles, *, init_system: bool, group_five: bool
) -> list[dict[str, Any]]:
    """All mounts in order: the system's that the definition does not replace, then its own by depth."""
    safe = ("nosuid", "noexec", "nodev")
    mounts = [
        _mount("/proc", "proc", "proc", *safe),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            *(("gid=5",) if group_five else ()),
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", *safe),
        _mount("/dev/shm", "tmpfs", "shm", *safe, "mode=1777", "size=64000k"),
        # A foreign network namespace's sysfs cannot be mounted by a user; its host's is bound instead.
        _mount("/sys", "none", "/sys", "rbind", "rslave", *safe, "ro")
        if definition.network is Network.HOST
        else _mount("/sys", "sysfs", "sysfs", *safe, "ro"),
        _mount(
            "/sys/fs/cgroup", "cgroup", "cgroup", "rprivate", "relatime", *safe, "rw" if init_system else "ro"
        ),
        *(
            _mount(f"/etc/{name}", "bind", f"{files.bundle}/{name}", "bind", "rprivate", *safe)
            for name in ("resolv.conf", "hosts", "hostname")
        ),
    ]
    taken = {mount.target for mount in definition.mounts}
    mounts = [mount for mount in mounts if mount["destination"] not in taken]
    for target in plan_scratch_targets(init_system=init_system, read_only=definition.security.read_only):
        if target not in taken:
            mode = "mode=755" if target == "/run" else "mode=1777"
            mounts.append(_mount(target, "tmpfs", "tmpfs", "nosuid", "nodev", mode, "tmpcopyup"))
    mounts.append(
        _mount("/run/.containerenv", "bind", f"{files.bundle}/containerenv", "bind", "rprivate", "ro", *safe)
    )
    if definition.init and files.init:
        mounts.append(_mount(INIT_TARGET, "bind", files.init, "bind", "rprivate", "ro", "nosuid", "nodev"))
    if definition.notify is Notify.CONTAINER and files.notify_socket:
        mounts.append(_mount(NOTIFY_TARGET, "bind", files.notify_socket, "bind", "rprivate", *safe))
    volumes = dict(files.volumes)
    for mount in sorted(definition.mounts, key=lambda m: m.target.count("/")):
        mounts.append(build_user_mount(mount, volumes))
    return mounts


def plan_scratch_targets(*, init_system: bool, read_only: bool) -> tuple[str, ...]:
    """Where a tmpfs is needed: for systemd inside, and for a read-only root, as Podman has them."""
    if init_system:
        return ("/run", "/run/lock", "/tmp", "/var/log/journal")
    return ("/run", "/tmp", "/var/tmp") if read_only else ()


def build_user_mount(mount: Mount, volumes: dict[str, str]) -> dict[str, Any]:
    """One mount of the definition. Paths are JSON strings here, never part of an option string."""
    access = "ro" if mount.read_only else "rw"
    if mount.type is MountType.TMPFS:
        size = () if mount.size is None else (f"size={mount.size}",)
        mode = f"mode={0o1777 if mount.mode is None else mount.mode:o}"
        return _mount(mount.target, "tmpfs", "tmpfs", "nosuid", "nodev", mode, *size, access, *mount.options)
    source = volumes[mount.target] if mount.type is MountType.VOLUME else mount.source
    options = tuple(
        option for option in mount.options if option != "nocopy"
    )  # the launcher's, not the kernel's
    propagation = (
        () if any("private" in o or "slave" in o or "shared" in o for o in options) else ("rprivate",)
    )
    return _mount(mount.target, "bind", source, "rbind", *propagation, "nosuid", "nodev", access, *options)
