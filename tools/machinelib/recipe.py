"""What the root file system is made of. The hash of all this names the cached copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

SUITE = "trixie"
# Those that a machine can be of: the Debian that is out, what will be the next one, and the oldest that we run on.
SUITES = (SUITE, "forky", "bookworm")
SUITE_VARIABLE = "MACHINE_SUITE"  # the one that is meant where nothing is said
# Packages that a suite does not have, and that are used only where they are there.
_LACKING = {"bookworm": ("python3-isal",)}

USERS = {"root": 0, "alice": 1000, "bob": 1001}


def _list_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PACKAGES = _list_words("""
    systemd systemd-sysv dbus dbus-user-session libpam-systemd
    uidmap crun passt fuse-overlayfs podman catatonit aardvark-dns docker-registry skopeo buildah gnupg openssl
    python3 python3-dbus-next python3-systemd python3-pyroute2 python3-requests python3-toml
    python3-rich python3-isal python3-zstandard python3-gpg python3-cryptography
    python3-pytest python3-pytest-timeout python3-hypothesis
    iproute2 procps kmod nftables strace attr curl ca-certificates man-db busybox-static bash-completion zsh fish
""")

# Units that only cost time in a machine that lives for seconds, or that wait for hardware.
_MASKED_UNITS = _list_words("""
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    fstrim.timer man-db.timer getty.target getty-static.service console-getty.service
    podman.service podman.socket podman-restart.service podman-auto-update.timer podman-auto-update.service
    podman-clean-transient.service docker-registry.service
    systemd-networkd-wait-online.service systemd-firstboot.service netavark-dhcp-proxy.socket nftables.service
    ldconfig.service systemd-journal-catalog-update.service systemd-sysusers.service systemd-update-done.service
""")
_MASKED_USER_UNITS = _list_words("""
    podman.service podman.socket podman-restart.service podman-auto-update.timer podman-auto-update.service
    gpg-agent.socket gpg-agent-browser.socket gpg-agent-extra.socket gpg-agent-ssh.socket dirmngr.socket
    keyboxd.socket
""")

# An uplink with addresses and routes, as every real machine has (pasta copies them), that ends at once: its other
# end answers nobody. Addresses are those that documentation may use.
_NETWORK = """\
link add uplink0 type veth peer name uplink0-end
link set uplink0 up
link set uplink0-end up
addr add 192.0.2.10/24 dev uplink0
addr add 2001:db8::10/64 dev uplink0 nodad
route add default via 192.0.2.1 dev uplink0
route add default via 2001:db8::1 dev uplink0
"""

_NETWORK_UNIT = """\
[Unit]
Description=The machine's uplink, which leads nowhere
DefaultDependencies=no
Before=network.target systemd-user-sessions.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/usr/bin/ip -batch /etc/machine-network

[Install]
WantedBy=multi-user.target
"""

_FILES = {
    "/etc/machine-network": _NETWORK,
    "/etc/systemd/system/machine-network.service": _NETWORK_UNIT,
    "/etc/hostname": "machine\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 machine\n::1 localhost ip6-localhost\n",
    # Nothing listens there: a look-up fails at once instead of waiting.
    "/etc/resolv.conf": "nameserver 127.0.0.1\n",
    "/etc/fstab": "",
    "/etc/default/locale": "LANG=C.UTF-8\n",
    "/etc/containers/registries.conf.d/50-machine.conf": (
        '[[registry]]\nlocation = "localhost:5000"\ninsecure = true\n\n'
        '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n'
    ),
    # The native lane may have no pids controller, and Podman then refuses its own default limit.
    "/etc/containers/containers.conf": "[containers]\npids_limit = 0\n",
    "/etc/systemd/journald.conf.d/50-machine.conf": (
        # journald's rate limit would drop the lines that a failing test needs.
        "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nSyncIntervalSec=1s\n"
    ),
    "/etc/systemd/system.conf.d/50-machine.conf": "[Manager]\nDefaultTimeoutStopSec=15s\n",
}

_COMMANDS = (
    "useradd --create-home --uid 1000 --shell /bin/bash --groups systemd-journal alice",
    "useradd --create-home --uid 1001 --shell /bin/bash bob",
    "mkdir -p /var/lib/systemd/linger /var/log/journal /checkout",
    "touch /var/lib/systemd/linger/alice /var/lib/systemd/linger/bob",
    "chgrp systemd-journal /var/log/journal",
    "chmod 2755 /var/log/journal",
    "systemctl mask " + " ".join(_MASKED_UNITS),
    "systemctl --global mask " + " ".join(_MASKED_USER_UNITS),
    "systemctl set-default multi-user.target",
    "systemctl enable machine-network.service",
    # Else systemd takes the first boot for one, and sets everything up again.
    "rm -f /etc/machine-id && systemd-machine-id-setup",
    "rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/bootstrap.log",
)


@dataclass(frozen=True)
class Recipe:
    """The inputs of a root file system; equal recipes give machines that behave equally."""

    suite: str = SUITE
    packages: tuple[str, ...] = _PACKAGES
    files: Mapping[str, str] = field(default_factory=lambda: dict(_FILES))
    commands: tuple[str, ...] = _COMMANDS


def choose_recipe(suite: str) -> Recipe:
    """The recipe of a suite's root file system."""
    lacking = _LACKING.get(suite, ())
    return Recipe(suite, tuple(package for package in _PACKAGES if package not in lacking))


def hash_inputs(*inputs: object) -> str:
    """A short stable name for JSON-able inputs."""
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_recipe(recipe: Recipe) -> str:
    """The name of the root file system that this recipe gives."""
    return hash_inputs("rootfs", asdict(recipe))
