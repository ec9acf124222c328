"""Which capabilities a container's process gets (capabilities(7)); pure."""

from __future__ import annotations

# Podman's default set (containers-common, containers.conf(5) ``default_capabilities``).
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

# <linux/capability.h>, in the order of their numbers.
_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""
ALL_CAPABILITIES = tuple(f"CAP_{name}" for name in _NAMES.split())


def plan_bounding_set(add: tuple[str, ...], drop: tuple[str, ...]) -> tuple[str, ...]:
    """Apply ``--cap-add`` and ``--cap-drop`` to the default set as docker does: ALL first, then single names."""
    if "ALL" in add:
        wanted = set(ALL_CAPABILITIES)
    elif "ALL" in drop:
        wanted = set()
    else:
        wanted = set(DEFAULT_CAPABILITIES)
    wanted |= {name for name in add if name != "ALL"}
    wanted -= {name for name in drop if name != "ALL"} - (set(add) if "ALL" in drop else set())
    return tuple(name for name in ALL_CAPABILITIES if name in wanted)


def plan_capabilities(add: tuple[str, ...], drop: tuple[str, ...], *, root: bool) -> dict[str, list[str]]:
    """Return the five sets of the runtime specification (config.md, "capabilities").

    Root has its bounding set in force. Another user has only what was added explicitly, and keeps that across
    execve(2) by way of the ambient set; the inheritable set stays empty for root (CVE-2022-24769).
    """
    bounding = list(plan_bounding_set(add, drop))
    if root:
        return {
            "bounding": bounding,
            "effective": bounding,
            "permitted": bounding,
            "inheritable": [],
            "ambient": [],
        }
    explicit = [name for name in bounding if name in add]
    return {
        "bounding": bounding,
        "effective": explicit,
        "permitted": explicit,
        "inheritable": explicit,
        "ambient": explicit,
    }
