"""The virtual environment that linters and unit tests run in: cached by what goes into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time

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

UNUSED_AGE = 30 * 86400  # seconds


def cache_directory() -> str:
    """Where everything that can be made again is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{base}/usercontainerd"


def ensure_environment() -> str:
    """Return the directory of the programs (ruff, mypy, python3 …), installing them the first time."""
    key = hashlib.sha256("\n".join((sys.version, *PACKAGES)).encode()).hexdigest()[:16]
    target = f"{cache_directory()}/check/{key}"
    if os.path.exists(f"{target}/complete"):
        os.utime(target)
        return f"{target}/bin"
    _remove_unused(os.path.dirname(target))
    print(f"check: installing {len(PACKAGES)} packages into {target}", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    _make_environment(target)
    install = [f"{target}/bin/python3", "-m", "pip", "install", "--quiet", *PACKAGES]
    if (status := subprocess.run(install, check=False).returncode) != 0:
        shutil.rmtree(target, ignore_errors=True)
        sys.exit(f"check: pip ended with status {status}; what linters and unit tests need comes from PyPI")
    with open(f"{target}/complete", "w", encoding="ascii"):
        pass
    return f"{target}/bin"


def _remove_unused(directory: str) -> None:
    """Remove environments that nobody used for a month."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            if entry.stat().st_mtime < time.time() - UNUSED_AGE:
                shutil.rmtree(entry.path)


def _make_environment(target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    command = [sys.executable, "-m", "venv", target]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0:
        return
    # Debian keeps ensurepip in a package of its own.
    shutil.rmtree(target, ignore_errors=True)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit("check: python3 -m venv does not work; install the package python3-venv (Debian)")
    print("check: installing python3-venv", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", "python3-venv"]):
        done = subprocess.run(
            ["apt-get", "--quiet=2", *step], env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            sys.exit(f"check: apt-get {step[0]} failed:\n{(done.stdout + done.stderr).strip()}")
    subprocess.run(command, check=True)
