"""Lays the checkout out below a root directory, as a package of it would.

What ends up where is one table; directories that the checkout does not have are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "usercontainerd"
SITE = "usr/lib/python3/dist-packages"

# The one line of a script that says where the package is; a second may be there for a checkout, where what the
# package needs lies elsewhere than the package.
_LOCATION = re.compile(rb"^sys\.path\.insert\(0, .*\)  # location of the package$", re.MULTILINE)
_ONLY_CHECKOUT = re.compile(rb"^.*  # only in a checkout: .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Rule:
    """Files of one directory of the checkout go to one directory below the root."""

    source: str
    pattern: str
    target: str
    mode: int


_RULES = (
    Rule("bin", "*", "usr/bin", 0o755),
    Rule("libexec", "*", "usr/libexec/usercontainerd", 0o755),
    Rule("libexec", "usercontainerd-generator", "usr/lib/systemd/user-generators", 0o755),
    Rule("units", "*", "usr/lib/systemd/user", 0o644),
    Rule("dbus", "*.service", "usr/share/dbus-1/services", 0o644),
    Rule("dbus", "*.xml", "usr/share/dbus-1/interfaces", 0o644),
    *(Rule("man", f"*.{section}", f"usr/share/man/man{section}", 0o644) for section in (1, 5, 7, 8)),
)


def list_sources(checkout: Path) -> list[Path]:
    """Every file of the checkout that an installation copies or depends on."""
    found = {path for rule in _RULES for path in _list_matches(checkout, rule)}
    found.update(_list_package(checkout))
    return sorted(found)


def install_tree(checkout: Path, root: Path, site: str = SITE) -> int:
    """Copy all of it below `root`; the number of files."""
    count = 0
    for rule in _RULES:
        for source in _list_matches(checkout, rule):
            _install_file(source, root / rule.target / source.name, rule.mode, f"/{site}")
            count += 1
    for source in _list_package(checkout):
        _install_file(source, root / site / source.relative_to(checkout), 0o644, f"/{site}")
        count += 1
    return count


def compile_package(root: Path, system: Path, site: str = SITE) -> bool:
    """Byte-compile the installed package with the Python of a Debian root file system; False: not all of it.

    The interpreter runs where it lies, through its own dynamic loader: no chroot, so no privilege is needed.
    Hash-based and unchecked, so that neither time stamps nor an overlay can make Python compile again.
    """
    python = system / "usr/bin/python3"
    target = root / site / PACKAGE
    if not python.exists() or not target.is_dir():
        return False
    loaders = sorted((system / "usr/lib").glob("*-linux-gnu*/ld-linux-*.so.*"))
    if system != Path("/") and loaders:
        loader = loaders[0]
        command = [str(loader), "--library-path", str(loader.parent), "--argv0", str(python), str(python)]
    else:
        command = [str(python)]
    arguments = ["-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", str(root), "-p", "/", str(target)]
    environment = {"PYTHONHOME": str(system / "usr"), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    # A file that does not compile is installed all the same: its error belongs to whoever runs it.
    return subprocess.run([*command, *arguments, *strip], env=environment, check=False).returncode == 0


def _list_matches(checkout: Path, rule: Rule) -> Iterator[Path]:
    return (path for path in sorted((checkout / rule.source).glob(rule.pattern)) if _is_source(path))


def _list_package(checkout: Path) -> Iterator[Path]:
    return (path for path in sorted((checkout / PACKAGE).rglob("*")) if _is_source(path))


def _is_source(path: Path) -> bool:
    return (
        path.is_file()
        and "__pycache__" not in path.parts
        and not path.name.startswith(".")
        and not path.name.endswith(("~", ".pyc"))
    )


def _install_file(source: Path, target: Path, mode: int, site: str) -> None:
    _make_directories(target.parent)
    shutil.copyfile(source, target)
    if mode & 0o100:
        content = target.read_bytes()
        line = f'sys.path.insert(0, "{site}")  # location of the package'
        target.write_bytes(_ONLY_CHECKOUT.sub(b"", _LOCATION.sub(line.encode(), content)))
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
