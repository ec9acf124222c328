"""Programs that the host must have: installed where we may, asked for where we may not."""

from __future__ import annotations

import os
import shutil
import subprocess

from machinelib.cache import say

_PACKAGE_OF = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "patchelf": "patchelf",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "depmod": "kmod",
}


class MachineError(Exception):
    """Something that the caller can do something about; the message says what."""


def find_program(name: str) -> str | None:
    """Where a program is; also in sbin, which a user's PATH often lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    return shutil.which(name, path=path)


def require_programs(*names: str) -> None:
    """Make sure that the host has these programs."""
    missing = sorted({_PACKAGE_OF[name] for name in names if find_program(name) is None})
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or find_program("apt-get") is None:
        raise MachineError(f"this needs programs of the host: apt-get update && {' '.join(command)}")
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update", "--quiet=2"], [*command, "--quiet=2"]):
        done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MachineError(f"{' '.join(step)} failed:\n{(done.stdout + done.stderr).strip()}")
