"""``doctor``: the programs and Python packages that are used."""

from __future__ import annotations

import os
import re
import sys

from usercontainerd.engine.host.components import PROGRAMS, ask_help, ask_version, parse_version
from usercontainerd.engine.host.doctor import (
    Finding,
    find_program,
    fine,
    lost,
    missing,
    suggest_installation,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from usercontainerd.engine.context import Context
    from usercontainerd.trust.policy import Policy

LEAST_CRUN = (1, 8)
LEAST_PASTA = "20240821"  # the first with this option; its versions are dates
_OPTION = "--map-guest-addr"
_NEEDED_FEATURES = ("+CAP", "+SECCOMP")
_PACKAGES = {
    "requests": "images cannot be pulled",
    "toml": "`usercontainer create` does not work",
}


def check_crun(context: Context) -> Iterator[Finding]:
    """The runtime, its version and what it was built with."""
    path = find_program(*PROGRAMS["crun"])
    if path is None:
        yield missing("crun", "not installed", suggest_installation("crun"))
    else:
        yield judge_crun(path, ask_version(path, context.paths.runtime_root))


def judge_crun(path: str, text: str) -> Finding:
    """By what ``crun --version`` printed. Pure."""
    words = text.split()
    version = parse_version(text)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if not numbers:
        return lost("crun", f"{path} does not say its version", "perhaps everything", "")
    if numbers < LEAST_CRUN:
        return missing("crun", f"version {version}", "crun 1.8 or later is needed")
    absent = [feature for feature in _NEEDED_FEATURES if feature not in words]
    if absent:
        return lost("crun", f"version {version}", f"it was built without {', '.join(absent)}", "")
    return fine("crun", f"version {version}")


def check_pasta(context: Context) -> Iterator[Finding]:
    """The user-mode network, and the device that it needs."""
    path = find_program(*PROGRAMS["pasta"])
    what = 'network = "pasta", the default; "none" and "host" work'
    if path is None:
        yield lost("pasta", "not installed", what, suggest_installation("pasta"))
        return
    first = ask_version(path, context.paths.runtime_root).partition("\n")[0]
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        yield lost("pasta", "/dev/net/tun cannot be opened", what, "sudo modprobe tun")
        return
    knows = parse_version(first) != "unknown" or _OPTION in ask_help(path)
    yield judge_pasta(path, first, what, knows=knows)


def judge_pasta(path: str, text: str, what: str, *, knows: bool = True) -> Finding:
    """By what ``pasta --version`` printed; ``what`` is lost without it. Pure.

    ``knows`` tells whether its help names the option that is used: what a distribution or somebody has built from an
    archive may say "unknown version".
    """
    # 2024_08_21.1d6142f of its makers, 0^20240821.g1d6142f of Fedora, 0.0~git20240821.1d6142f of Debian.
    date = re.search(r"(20\d\d)_?(\d\d)_?(\d\d)", text)
    version = parse_version(text)
    if not knows or (date is not None and "".join(date.groups()) < LEAST_PASTA):
        return lost("pasta", f"version {version}", what, "install passt 2024_08_21 or later")
    return fine("pasta", version or path)


def check_init(_context: Context) -> Iterator[Finding]:
    """The small init for ``init = true``."""
    from usercontainerd.engine.containers.preparation import INIT_PATHS

    path = find_program(*INIT_PATHS)
    if path is None:
        yield lost("catatonit", "not installed", "init = true (--init)", suggest_installation("catatonit"))
    else:
        yield fine("catatonit", path)


def check_python_packages(_context: Context) -> Iterator[Finding]:
    """What is imported only when needed."""
    absent = [package for package in _PACKAGES if not has_package(package)]
    for package in absent:
        yield lost(f"python {package}", "not installed", _PACKAGES[package], suggest_installation(package))
    if not absent:
        yield fine("python", f"{sys.version.split()[0]} with {', '.join(_PACKAGES)}")


def check_signature_policy(context: Context) -> Iterator[Finding]:
    """The file that says which images may come, and what checks the signatures that it wants."""
    from usercontainerd.base.errors import HostError, InvalidFormat, PullDenied
    from usercontainerd.engine.registries.admission import list_home_configs
    from usercontainerd.trust.policy import policy_files, read_policy

    name, what = "signature policy", "images cannot be pulled or loaded"
    try:
        policy = read_policy(policy_files(list_home_configs(context)))
    except PullDenied:
        yield lost(name, "there is no policy.json", what, suggest_installation("containers-common"))
        return
    except (InvalidFormat, HostError) as error:
        yield lost(name, str(error), what, "see containers-policy.json(5)")
        return
    yield judge_policy(policy, find_program("gpg", "gpg2"), has_package("cryptography"))


def judge_policy(policy: Policy, gpg: str | None, cryptography: bool) -> Finding:
    """By what the policy wants and what is there to check it. Pure."""
    wanted = {type(requirement).__name__ for requirement in policy.list_requirements()}
    name = "signature policy"
    if "SignedBy" in wanted and gpg is None:
        return lost(name, policy.path, "images that need a GPG signature", suggest_installation("gpg"))
    if "SigstoreSigned" in wanted and not cryptography:
        return lost(
            name, policy.path, "images that need a sigstore signature", suggest_installation("cryptography")
        )
    return fine(name, policy.path)


def has_package(package: str) -> bool:
    """Tell whether a Python package is installed, without importing it."""
    from importlib.util import find_spec

    return find_spec(package) is not None


TOOL_CHECKS = (check_crun, check_pasta, check_init, check_python_packages, check_signature_policy)
