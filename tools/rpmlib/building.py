"""Runs rpmbuild, on Fedora as its packagers do, on a Debian with what packaging/rpm/debian has for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rpmlib.sources import CHECKOUT, NAME, SPEC, render_as

DEBIAN = CHECKOUT / "packaging/rpm/debian"
_FEDORA_MACROS = Path("/usr/lib/rpm/macros.d/macros.pyproject")
_BUILDER = "alice"  # of a private machine: rpmbuild is nothing for root


class BuildError(Exception):
    """A program failed; the text is its own last lines."""


@dataclass(frozen=True)
class Builder:
    """Builds below a directory of its own."""

    top: Path
    # The user that rpmbuild runs as; None: whoever we are.
    user: str | None = None

    def build(self, archive: Path, version: str, *, check: bool, source_only: bool = False) -> list[Path]:
        """Build the source package and, if not ``source_only``, the others; all of them, by name."""
        sources = self.top / "SOURCES"
        sources.mkdir(parents=True, exist_ok=True)
        shutil.copy(archive, sources / f"{NAME}-{version}.tar.gz")
        spec = self.top / f"{NAME}.spec"
        spec.write_text(render_as(SPEC, version))
        if self.user is not None:
            subprocess.run(["chown", "-R", f"{self.user}:", str(self.top)], check=True)
        command = ["rpmbuild", "-bs" if source_only else "-ba", *list_options(self.top)]
        run_logged(
            [*command, *([] if check else ["--nocheck"]), str(spec)], self.top / "build.log", self.user
        )
        return sorted([*(self.top / "SRPMS").glob("*.rpm"), *(self.top / "RPMS").rglob("*.rpm")])


def has_fedora_macros() -> bool:
    """Whether this system builds Python packages as Fedora does."""
    return shutil.which("rpmbuild") is not None and _FEDORA_MACROS.exists()


def list_options(top: Path) -> list[str]:
    """Arguments of rpmbuild and rpmspec: where it works, and on a Debian where Fedora's macros are."""
    options = ["--define", f"_topdir {top}"]
    if not has_fedora_macros():
        options += ["--define", f"_debian {DEBIAN}", f"--macros={_read_macro_path()}:{DEBIAN / 'macros'}"]
    return options


def _read_macro_path() -> str:
    """Where rpm reads macros; --load would not outlive its look at the target platform."""
    shown = subprocess.run(["rpm", "--showrc"], capture_output=True, text=True, check=True).stdout
    [path] = [line.split(": ", 1)[1] for line in shown.splitlines() if line.startswith("Macro path: ")]
    return path


def open_builder(top: Path) -> Builder:
    """One for this system. As root on a Debian, which is a private machine, it makes that ready first."""
    if has_fedora_macros():
        return Builder(top)
    if shutil.which("rpmbuild") is None:
        raise BuildError("there is no rpmbuild here (on Fedora: sudo dnf install rpm-build)")
    if os.geteuid() == 0:
        install_stand_ins(top / "stand-ins")
        return Builder(top, _BUILDER)
    return Builder(top)


def install_stand_ins(top: Path) -> None:
    """Tell rpm what dpkg has installed."""
    spec = DEBIAN / "debian-stand-ins.spec"
    run_logged(["rpmbuild", "-bb", *list_options(top), str(spec)], top / "build.log")
    run_logged(["rpm", "--upgrade", "--force", *map(str, (top / "RPMS").rglob("*.rpm"))], top / "install.log")


def run_logged(command: Sequence[str], log: Path, user: str | None = None) -> None:
    """Run a program; what it says goes to a file, and its last lines into the error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    prefix = [] if user is None else ["runuser", "-u", user, "--"]
    with log.open("wb") as file:
        done = subprocess.run(
            [*prefix, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise BuildError(f"{command[0]} ended with status {done.returncode} (all of it: {log}):\n{last}")
