"""What this host offers to containers, what is lost where something is missing, and the command that mends it.

A check is a function that looks and returns ``Finding``s. What it concludes from what it saw is in pure functions, so
that tests can show them any host.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from usercontainerd.base.errors import UsercontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usercontainerd.engine.context import Context


class Verdict:
    """``FINE``; ``LOST``: containers work, but something does not; ``MISSING``: no container works."""

    FINE = "fine"
    LOST = "lost"
    MISSING = "missing"


class Finding:
    """One line. ``found`` is what is there, ``lost`` what does not work because of it, ``mend`` a command or advice."""

    __slots__ = ("found", "lost", "mend", "name", "verdict")

    def __init__(self, name: str, verdict: str, found: str, *, lost: str = "", mend: str = "") -> None:
        self.name = name
        self.verdict = verdict
        self.found = found
        self.lost = lost
        self.mend = mend

    def as_dict(self) -> dict[str, str]:
        """For JSON and D-Bus."""
        return {key: getattr(self, key) for key in ("name", "verdict", "found", "lost", "mend")}


def fine(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name, Verdict.FINE, found)


def lost(name: str, found: str, what: str, mend: str) -> Finding:
    """Something does not work."""
    return Finding(name, Verdict.LOST, found, lost=what, mend=mend)


def missing(name: str, found: str, mend: str, what: str = "no container can be started") -> Finding:
    """Nothing works."""
    return Finding(name, Verdict.MISSING, found, lost=what, mend=mend)


def run_checks(context: Context) -> list[Finding]:
    """Run all checks. One that fails by itself becomes a finding, not an error."""
    from usercontainerd.engine.host.host_checks import HOST_CHECKS
    from usercontainerd.engine.host.selinux_checks import SELINUX_CHECKS
    from usercontainerd.engine.host.session_checks import SESSION_CHECKS
    from usercontainerd.engine.host.tool_checks import TOOL_CHECKS

    findings: list[Finding] = []
    for check in (*HOST_CHECKS, *SELINUX_CHECKS, *SESSION_CHECKS, *TOOL_CHECKS):
        findings += _run(check, context)
    return findings


def _run(check: Callable[[Context], Iterable[Finding]], context: Context) -> list[Finding]:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        return list(check(context))
    except UsercontainerError as error:
        where = f"{error.where}: " if error.where else ""
        return [lost(name, f"cannot be checked: {where}{error.what}", "unknown", error.hint or "")]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [lost(name, f"cannot be checked: {error}", "unknown", "")]


def has_missing(findings: Iterable[Finding]) -> bool:
    """Tell whether something essential is missing."""
    return any(finding.verdict == Verdict.MISSING for finding in findings)


# What distributions call the packages that programs come from; the first is for all others.
_PACKAGES = {
    "newuidmap": ("shadow-utils", {"debian": "uidmap", "suse": "shadow", "arch": "shadow"}),
    "containers-common": ("containers-common", {"debian": "golang-github-containers-common"}),
    "pasta": ("passt", {}),
    "requests": ("python3-requests", {"arch": "python-requests"}),
    "toml": ("python3-toml", {"arch": "python-toml"}),
    "gpg": ("gnupg2", {"debian": "gnupg", "suse": "gpg2", "arch": "gnupg"}),
    "cryptography": ("python3-cryptography", {"arch": "python-cryptography"}),
}
_INSTALLERS = {
    "debian": "sudo apt install",
    "fedora": "sudo dnf install",
    "suse": "sudo zypper install",
    "arch": "sudo pacman -S",
}


def plan_installation(program: str, os_release: str) -> str:
    """Return the command that installs what ``program`` comes from, by the text of os-release(5). Pure."""
    values = dict(line.partition("=")[::2] for line in os_release.splitlines())
    words = " ".join(values.get(key, "") for key in ("ID", "ID_LIKE")).replace('"', "").split()
    families = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse", "sles": "suse"}
    family = next((families.get(word, word) for word in words if families.get(word, word) in _INSTALLERS), "")
    common, special = _PACKAGES.get(program, (program, {}))
    package = special.get(family, common)
    return f"{_INSTALLERS[family]} {package}" if family else f"install the package {package}"


def suggest_installation(program: str) -> str:
    """``plan_installation`` for this host."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return plan_installation(program, file.read())
        except FileNotFoundError:
            continue
    return plan_installation(program, "")


def read_text(path: str) -> str | None:
    """A small file of the kernel's or the system's, without its last line end; None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20).rstrip("\n")
    except OSError:
        return None


def find_program(*candidates: str) -> str | None:
    """The first that can be executed; a name without a slash is looked up in the usual directories."""
    for candidate in candidates:
        if "/" in candidate:
            if os.access(candidate, os.X_OK):
                return candidate
        elif found := shutil.which(candidate, path="/usr/bin:/usr/local/bin:/usr/sbin:/bin"):
            return found
    return None
