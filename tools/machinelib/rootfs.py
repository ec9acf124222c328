"""Builds the root file system that both lanes boot."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from machinelib.cache import Artifact, clean_artifacts, obtain_artifact, say
from machinelib.hosttools import MachineError, require_programs
from machinelib.recipe import Recipe, hash_recipe

KIND = "rootfs"

_UNUSED_AGE = 30 * 86400.0

# mmdebstrap's own narration, of which these steps take seconds.
_PROGRESS = re.compile(r"^I: (running apt|downloading|extracting|installing|success|cleaning)(.*)")


def obtain_rootfs(recipe: Recipe | None = None) -> Artifact:
    """The root file system (its directory is `tree` in the artifact), built if need be."""
    recipe = recipe or Recipe()
    return obtain_artifact(KIND, hash_recipe(recipe), lambda stage: _build_rootfs(stage, recipe))


def _build_rootfs(stage: Path, recipe: Recipe) -> None:
    if os.geteuid() != 0:
        raise MachineError(
            "building the root file system needs root (once; running the kernel lane does not)"
        )
    require_programs("mmdebstrap")
    say(f"building the root file system (Debian {recipe.suite}; about a minute, then cached)")
    _run_narrated(_plan_command(stage / "tree", recipe))
    # A new recipe leaves the old one's artifacts behind; each use makes one young again.
    for name in clean_artifacts(lambda _name, age: age > _UNUSED_AGE):
        say(f"removed {name}: not used for a month")


def _plan_command(tree: Path, recipe: Recipe) -> list[str]:
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--verbose",
        "--aptopt=Acquire::Languages none",
        # A mirror's copy of a suite that is still in the making may be older than a week.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--include={','.join(recipe.packages)}",
    ]
    # Hooks run with the new root's path as $1.
    for path, text in recipe.files.items():
        command.append(
            f'--customize-hook=rm -f "$1"{path}; mkdir -p "$(dirname "$1"{path})";'
            f' printf %s {_quote_shell(text)} > "$1"{path}'
        )
    command += [f'--customize-hook=chroot "$1" sh -c {_quote_shell(line)}' for line in recipe.commands]
    mirror = os.environ.get("MACHINE_MIRROR")
    return [*command, recipe.suite, str(tree), *([mirror] if mirror else [])]


def _quote_shell(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _run_narrated(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    log: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            if match := _PROGRESS.match(line):
                say("  " + "".join(match.groups()))
    if process.returncode != 0:
        tail = "".join(log[-30:])
        raise MachineError(f"mmdebstrap failed (status {process.returncode}):\n{tail}")
