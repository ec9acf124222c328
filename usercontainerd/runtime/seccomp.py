"""containers-common's seccomp profile, turned into the runtime specification's form.

The profile (``/usr/share/containers/seccomp.json``) has rules that hold only for some architectures or only with
some capabilities; the runtime wants a flat list (runtime-spec config-linux.md, "seccomp").
"""

from __future__ import annotations

import errno
import json
import os

from usercontainerd.base.errors import InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROFILE_PATHS = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
MAX_PROFILE_SIZE = 4 << 20

# uname -m to the names that profiles use: Go's, and libseccomp's.
ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}


def find_profile(paths: tuple[str, ...] = PROFILE_PATHS) -> str | None:
    """Return the system's default profile: the administrator's before the package's."""
    return next((path for path in paths if os.path.isfile(path)), None)


def read_profile(path: str) -> dict[str, Any]:
    """Read a profile file; raises ``InvalidFormat`` naming it."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PROFILE_SIZE + 1)
    except OSError as error:
        raise InvalidFormat(f"cannot read the seccomp profile: {error.strerror}", where=path) from error
    if len(data) > MAX_PROFILE_SIZE:
        raise InvalidFormat("the seccomp profile is larger than 4 MiB", where=path)
    try:
        profile = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidFormat(f"the seccomp profile is not JSON: {error}", where=path) from error
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise InvalidFormat('the seccomp profile has no "defaultAction"', where=path)
    return profile


def convert_profile(
    profile: dict[str, Any], *, machine: str, capabilities: tuple[str, ...], kernel: tuple[int, int]
) -> dict[str, Any]:
    """Return the OCI form of ``profile`` for ``machine`` (uname -m), a bounding set and a kernel version."""
    go_name, native = ARCHITECTURES.get(machine, (machine, ""))
    result: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    default_errno = _error_number(profile, "defaultErrnoRet", "defaultErrno")
    if default_errno is not None:
        result["defaultErrnoRet"] = default_errno
    architectures = _architectures(profile, native)
    if architectures:
        result["architectures"] = architectures
    result["syscalls"] = [
        _convert_rule(rule)
        for rule in profile.get("syscalls") or ()
        if _rule_applies(rule, go_name, capabilities, kernel)
    ]
    return result


def _architectures(profile: dict[str, Any], native: str) -> list[str]:
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return list(profile.get("architectures") or ([native] if native else ()))


def _rule_applies(
    rule: dict[str, Any], architecture: str, capabilities: tuple[str, ...], kernel: tuple[int, int]
) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if architecture in (excludes.get("arches") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    minimum = includes.get("minKernel")
    if minimum and kernel < tuple(int(part) for part in minimum.split(".")[:2]):
        return False
    return all(name in capabilities for name in includes.get("caps") or ())


def _convert_rule(rule: dict[str, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = {
        "names": list(rule.get("names") or ([rule["name"]] if rule.get("name") else ())),
        "action": rule["action"],
    }
    number = _error_number(rule, "errnoRet", "errno")
    if number is not None:
        converted["errnoRet"] = number
    if rule.get("args"):
        converted["args"] = [
            {key: argument[key] for key in ("index", "value", "valueTwo", "op") if key in argument}
            for argument in rule["args"]
        ]
    return converted


def _error_number(owner: dict[str, Any], number_key: str, name_key: str) -> int | None:
    """The errno of a rule or profile; its name wins, since numbers differ between architectures."""
    name = owner.get(name_key)
    if name:
        return int(getattr(errno, name))
    number = owner.get(number_key)
    return None if number is None else int(number)


def parse_kernel_version(release: str) -> tuple[int, int]:
    """Return (6, 18) for ``6.18.44-fc``."""
    major, _, rest = release.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return int(major), int(minor or "0")


def load_seccomp(choice: str, capabilities: tuple[str, ...]) -> tuple[dict[str, Any] | None, str | None]:
    """Return (OCI seccomp section or None, the file it came from) for ``default``, ``unconfined`` or a path."""
    if choice == "unconfined":
        return None, None
    path = find_profile() if choice == "default" else choice
    if path is None:
        raise InvalidFormat(
            "no seccomp profile is installed",
            where=PROFILE_PATHS[-1],
            hint="install the package containers-common (Debian: golang-github-containers-common)",
        )
    host = os.uname()
    section = convert_profile(
        read_profile(path),
        machine=host.machine,
        capabilities=capabilities,
        kernel=parse_kernel_version(host.release),
    )
    return section, path
