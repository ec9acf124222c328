"""Fetches Debian packages by a temporary apt configuration: another suite than the host's, and nothing installed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from machinelib.hosttools import MachineError, require_programs

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_DEFAULT_MIRROR = "http://deb.debian.org/debian"

_CONFIGURATION = """\
Dir "{directory}";
Dir::State::status "{status}";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Architecture "{architecture}";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
"""

_PLANNED = re.compile(r"^Inst (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Apt:
    """An apt that knows one suite, and what is installed elsewhere."""

    directory: Path
    environment: dict[str, str]

    def plan_closure(self, packages: Collection[str], without: Collection[str]) -> list[str]:
        """The packages with all that they need and that is not installed, less some that nobody will miss."""
        shown = run_tool(["apt-get", "install", "--simulate", *packages], env=self.environment)
        return sorted(set(_PLANNED.findall(shown)) - set(without))

    def download(self, packages: Collection[str]) -> list[Path]:
        """Fetch these packages, and nothing that they need; the files."""
        run_tool(
            ["apt-get", "download", "--quiet=2", *packages], env=self.environment, directory=self.directory
        )
        found = sorted(self.directory.glob("*.deb"))
        if len(found) < len(packages):
            raise MachineError(f"apt-get downloaded {len(found)} packages of {len(packages)}")
        return found


def open_suite(directory: Path, suite: str, architecture: str, status: str = "/dev/null") -> Apt:
    """An apt for a suite, with its lists fetched; `status` is the dpkg database of what is installed."""
    require_programs("apt-get", "dpkg-deb")
    for name in ("etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (directory / name).mkdir(parents=True)
    mirror = os.environ.get("MACHINE_MIRROR", _DEFAULT_MIRROR)
    (directory / "etc/apt/sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n")
    configuration = directory / "apt.conf"
    text = _CONFIGURATION.format(directory=directory, status=status, architecture=architecture)
    # Whatever proxy the host's apt uses is the one that works here.
    configuration.write_text(text + "".join(f"{line}\n" for line in _read_host_proxies()))
    environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}
    run_tool(["apt-get", "update", "--quiet=2"], env=environment)
    return Apt(directory, environment)


def _read_host_proxies() -> list[str]:
    shown = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    prefixes = ("Acquire::http::", "Acquire::https::")
    return [line for line in shown.stdout.splitlines() if line.startswith(prefixes) and '""' not in line]


def run_tool(command: list[str], env: dict[str, str] | None = None, directory: Path | None = None) -> str:
    """Run a program of the host; what it prints. Raises `MachineError` with its last line if it fails."""
    done = subprocess.run(command, env=env, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise MachineError(f"{' '.join(command[:3])}: {last[0]}")
    return done.stdout
