"""Platforms of an image index and which of them runs here (OCI image-index.md; Go's GOOS and GOARCH)."""

from __future__ import annotations

import re

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.records import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv7": ("arm", "v7"),
    "armhf": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "armel": ("arm", "v6"),
    "ppc64le": ("ppc64le", ""),
    "ppc64": ("ppc64", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
# In the order of the table, each once.
ARCHITECTURES = tuple(dict.fromkeys(name for name, _ in _MACHINES.values()))
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")


@dataclass(frozen=True)
class Platform:
    """Operating system, architecture and variant in Go's words (``linux``, ``arm64``, ``v8``)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def normalize_platform(platform: Platform) -> Platform:
    """Bring the spellings of one platform together (containerd's platforms package has the same table)."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _MACHINES:
        architecture, implied = _MACHINES[architecture]
        variant = variant or implied
    if (architecture, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        variant = ""
    elif architecture == "arm":
        variant = {"": "v7", "7": "v7", "6": "v6", "5": "v5", "8": "v8"}.get(variant, variant)
    return Platform(platform.os.lower(), architecture, variant)


def plan_host_platform(machine: str) -> Platform:
    """Return the platform of a Linux machine by its ``uname -m``."""
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return normalize_platform(Platform("linux", architecture, variant))


def parse_platform(text: str) -> Platform:
    """Parse ``os/arch[/variant]`` or a bare architecture. Raises ``InvalidArgument``."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.match(part) for part in parts):
        raise InvalidArgument(
            f"not a platform: {text!r}", hint="os/architecture or os/architecture/variant: linux/arm64"
        )
    if len(parts) == 1:
        parts = ["linux", *parts]
    return normalize_platform(Platform(*parts))


def plan_platform(
    machine: str, system: str | None, architecture: str | None, variant: str | None
) -> Platform:
    """Return the platform of a machine (``uname -m``) with what is given in the place of its own.

    Raises ``InvalidArgument``.
    """
    host = plan_host_platform(machine)
    if variant is None and architecture is None:
        variant = host.variant
    parts = [system or host.os, architecture or host.architecture, *([variant] if variant else [])]
    return parse_platform("/".join(parts))


def _acceptable(wanted: Platform) -> Sequence[Platform]:
    """What runs on ``wanted``, best first."""
    if wanted.architecture == "arm" and wanted.variant in _ARM_VARIANTS:
        able = _ARM_VARIANTS[_ARM_VARIANTS.index(wanted.variant) :]
        return [Platform(wanted.os, "arm", variant) for variant in able]
    plain = Platform(wanted.os, wanted.architecture)
    # A newer variant (amd64/v3, arm64/v9) was asked for by name: the baseline runs there too.
    return [wanted, plain] if wanted.variant else [plain]


def choose_platform(wanted: Platform, offered: Iterable[Platform | None]) -> int | None:
    """Return the index of the offer that suits ``wanted`` best, the first of equals; None if none does."""
    normal = [None if platform is None else normalize_platform(platform) for platform in offered]
    for acceptable in _acceptable(normalize_platform(wanted)):
        if acceptable in normal:
            return normal.index(acceptable)
    return None
