"""Lays the checkout out below a root directory, as a package of it would.

What ends up where is the table in usercontainerd.engine.setup.installation; directories that the checkout does not have
are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from usercontainerd.base.programs import LIBEXEC, PACKAGE, SYSTEM_PREFIX
from usercontainerd.engine.setup.installation import (
    PACKAGE_KINDS,
    RULES,
    Copy,
    Rule,
    is_source,
    render_file,
    select_names,
)

SITE = "usr/lib/python3/dist-packages"


@dataclass(frozen=True)
class Destination:
    """Below ``root``: the prefix, and where Python looks for packages. The first of ``sites`` is this package's.

    ``with_package`` is False where something else installs the Python package.
    """

    root: Path
    prefix: str = SYSTEM_PREFIX
    sites: tuple[str, ...] = (SITE,)
    with_package: bool = True

    @property
    def site(self) -> Path:
        """The directory that the package goes to."""
        return self.root / self.sites[0].strip("/")

    def copy(self) -> Copy:
        """What installed files know of each other."""
        return Copy(
            f"/{self.prefix.strip('/')}/{LIBEXEC}", tuple(f"/{site.strip('/')}" for site in self.sites)
        )


def list_sources(checkout: Path) -> list[Path]:
    """Every file of the checkout that an installation copies or depends on."""
    found = {path for rule in RULES for path in _list_matches(checkout, rule)}
    found.update(_list_package(checkout))
    return sorted(found)


def install_tree(checkout: Path, destination: Destination) -> int:
    """Copy all of it; the number of files."""
    count = 0
    copy = destination.copy()
    for rule in RULES:
        for source in _list_matches(checkout, rule) if rule.kind in PACKAGE_KINDS else ():
            target = destination.root / destination.prefix.strip("/") / rule.target / source.name
            _install_file(source, target, rule.mode, render_file(rule, source.read_bytes(), copy))
            count += 1
    for source in _list_package(checkout) if destination.with_package else ():
        _install_file(source, destination.site / source.relative_to(checkout), 0o644, source.read_bytes())
        count += 1
    return count


def compile_package(destination: Destination, system: Path) -> bool:
    """Byte-compile the installed package with the Python of a Debian root file system; False: not all of it.

    The interpreter runs where it lies, through its own dynamic loader: no chroot, so no privilege is needed.
    Hash-based and unchecked, so that neither time stamps nor an overlay can make Python compile again.
    """
    python = system / "usr/bin/python3"
    target = destination.site / PACKAGE
    if not python.exists() or not target.is_dir():
        return False
    loaders = sorted((system / "usr/lib").glob("*-linux-gnu*/ld-linux-*.so.*"))
    if system != Path("/") and loaders:
        loader = loaders[0]
        command = [str(loader), "--library-path", str(loader.parent), "--argv0", str(python), str(python)]
    else:
        command = [str(python)]
    arguments = ["-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", str(destination.root), "-p", "/", str(target)]
    environment = {"PYTHONHOME": str(system / "usr"), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    # A file that does not compile is installed all the same: its error belongs to whoever runs it.
    return subprocess.run([*command, *arguments, *strip], env=environment, check=False).returncode == 0


def _list_matches(checkout: Path, rule: Rule) -> Iterator[Path]:
    directory = checkout / rule.source
    if directory.is_dir():
        names = (path.name for path in directory.iterdir() if path.is_file())
        yield from (directory / name for name in select_names(rule, names))


def _list_package(checkout: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted((checkout / PACKAGE).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and is_source(path.name)
    )


def _install_file(source: Path, target: Path, mode: int, content: bytes) -> None:
    _make_directories(target.parent)
    target.write_bytes(content)
    target.chmod(mode)
    found = source.stat()
    os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))


def _make_directories(directory: Path) -> None:
    """Like mkdir -p, but never with the caller's umask: the tree is laid over a system's own directories."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directory.mkdir()
    directory.chmod(0o755)
