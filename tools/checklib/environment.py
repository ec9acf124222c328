"""The virtual environment that linters and unit tests run in: cached by what goes into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

# Linters are pinned by their minor version: a new rule shall not break an old checkout.
PACKAGES = (
    "ruff==0.17.*",
    "mypy==2.4.*",
    "reuse==6.2.*",
    "pytest>=8,<10",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "setuptools>=70.1",
    "types-requests",
    "types-toml",
    "requests",
    "toml",
    "dbus-next",
    "zstandard",
    "isal",
    "rich",
    "cryptography",
)


def cache_directory() -> str:
    """Where everything that can be made again is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{base}/usercontainerd"


def ensure_environment() -> str:
    """Return the directory of the programs (ruff, mypy, python3 …), installing them the first time."""
    key = hashlib.sha256("\n".join((sys.version, *PACKAGES)).encode()).hexdigest()[:16]
    target = f"{cache_directory()}/check/{key}"
    if os.path.exists(f"{target}/complete"):
        return f"{target}/bin"
    print(f"check: installing {len(PACKAGES)} packages into {target}", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    _make_environment(target)
    subprocess.run([f"{target}/bin/python3", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    with open(f"{target}/complete", "w", encoding="ascii"):
        pass
    return f"{target}/bin"


def _make_environment(target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    command = [sys.executable, "-m", "venv", target]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0:
        return
    # Debian keeps ensurepip in a package of its own.
    if os.geteuid() != 0:
        sys.exit("check: python3 -m venv does not work; install the package python3-venv")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-qq", "-y", "python3-venv"], check=True)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(command, check=True)
