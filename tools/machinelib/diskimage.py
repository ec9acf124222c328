"""The root file system as a disk image, for the kernel lane."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from machinelib.cache import Artifact, obtain_artifact, say
from machinelib.hosttools import MachineError, find_program, require_programs
from machinelib.recipe import hash_inputs

IMAGE = "base.img"
SIZE = "6G"  # sparse

ENTRY = "/usr/lib/machine-entry"

# All that the image holds beside the root file system: the rest comes with each run, over hostfs. The kernel hands
# MACHINE_WORK of its command line to its init as a variable. (The second form of the option is Linux 6.1's.)
_ENTRY_SCRIPT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
mkdir -m 0700 /run/machine
mount -t hostfs -o "hostfs=$MACHINE_WORK" none /run/machine ||
    mount -t hostfs -o "$MACHINE_WORK" none /run/machine
. /run/machine/entry
"""


def obtain_disk_image(system: Artifact) -> Path:
    """The image, made if it is not cached."""
    tree = system.path / "tree"
    artifact = obtain_artifact("image", hash_image(system.path.name), lambda stage: _build(stage, tree))
    return artifact.path / IMAGE


def hash_image(system_name: str) -> str:
    """Names the cached image."""
    return hash_inputs(system_name, _ENTRY_SCRIPT, SIZE)


def _build(stage: Path, tree: Path) -> None:
    require_root()
    say("making a disk image of the root file system")
    write_image(stage, tree)


def require_root() -> None:
    """Files are to have their owners."""
    if os.geteuid() != 0:
        raise MachineError("making the disk image needs root (once; running it does not)")


def write_image(stage: Path, tree: Path) -> None:
    """Make the image of a tree, with all its attributes, and of the script that is its first process."""
    require_programs("mke2fs")
    image = stage / IMAGE
    _run(
        [
            *(find_program("mke2fs") or "mke2fs", "-q", "-F", "-t", "ext4"),
            # Nothing survives a run, so nothing needs a journal.
            *("-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=1,nodiscard"),
            *("-d", str(tree), str(image), SIZE),
        ]
    )
    script = stage / "entry"
    script.write_text(_ENTRY_SCRIPT)
    for request in (f"write {script} {ENTRY}", f"set_inode_field {ENTRY} mode 0100755"):
        _run([find_program("debugfs") or "debugfs", "-w", "-R", request, str(image)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineError(f"{command[0]} failed: {done.stderr.strip()}")
