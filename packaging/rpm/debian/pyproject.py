"""The parts of debian/macros that are too long for a macro: what pyproject-rpm-macros does on Fedora."""

from __future__ import annotations

import compileall
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from py_compile import PycInvalidationMode

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*(?:\(?\s*(>=|==|<=|<|>)\s*([0-9.]+))?[^;]*(;.*)?$")


def render_requirement(text: str) -> str:
    """A requirement of Python's as rpm has it: ``python3dist(NAME) >= VERSION``."""
    match = _REQUIREMENT.match(text)
    if match is None:
        raise SystemExit(f"pyproject.py: cannot read the requirement {text!r}")
    name, operator, version, _ = match.groups()
    capability = f"python3dist({re.sub(r'[-_.]+', '-', name).lower()})"
    return f"{capability} {'=' if operator == '==' else operator} {version}" if operator else capability


def list_build_requirements() -> Iterator[str]:
    """Of the tree in the current directory: to build it and, as tests need that, to run it."""
    import tomllib

    from setuptools import build_meta

    yield "pyproject-rpm-macros"
    yield "python3dist(pip)"
    requirements = tomllib.loads(Path("pyproject.toml").read_text())["build-system"]["requires"]
    stdout = os.dup(1)
    os.dup2(2, 1)  # setuptools talks on standard output, which is our answer
    requirements += build_meta.get_requires_for_build_wheel()
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory) / build_meta.prepare_metadata_for_build_wheel(directory)
        requirements += [each for each in PathDistribution(found).requires or () if "extra ==" not in each]
    os.dup2(stdout, 1)
    yield from map(render_requirement, requirements)


def find_distribution(site: Path) -> Distribution:
    """The one that was installed below ``site``."""
    [found] = site.glob("*.dist-info")
    return PathDistribution(found)


def finish_installation(site: Path) -> None:
    """Undo what pip --target and pip's own database do: the one of what is installed is rpm's."""
    shutil.rmtree(site / "bin", ignore_errors=True)  # the spec installs the command by other means
    [found] = site.glob("*.dist-info")
    (found / "INSTALLER").write_text("rpm\n")
    for name in ("REQUESTED", "direct_url.json"):
        (found / name).unlink(missing_ok=True)


def save_files(root: Path, site: Path, target: Path, modules: list[str]) -> None:
    """The list for ``%files -f``: the modules, compiled and not, and their metadata with the licence marked."""
    below = root / site.relative_to("/")
    distribution = find_distribution(below)
    licences = set(distribution.metadata.get_all("License-File") or ())
    if not licences:
        raise SystemExit("pyproject.py: the metadata name no licence file")
    lines, directories, tag = [], set(), f"cpython-{sys.version_info[0]}{sys.version_info[1]}"
    for entry in distribution.files or ():
        path = Path(str(entry))
        info = path.parts[0].endswith(".dist-info")
        if path.name == "RECORD" or not (info or path.parts[0] in modules):
            continue
        licence = "%license " if info and path.name in licences else ""
        lines.append(f"{licence}{site / path}")
        directories |= {parent for parent in path.parents if parent.name}
        if path.suffix == ".py":
            directories.add(path.parent / "__pycache__")
            lines += [
                f"{site / path.parent}/__pycache__/{path.stem}.{tag}{opt}.pyc" for opt in ("", ".opt-1")
            ]
    [info_directory] = below.glob("*.dist-info")
    (info_directory / "RECORD").unlink()
    text = "".join(f"%dir {site / each}\n" for each in sorted(directories)) + "".join(
        f"{each}\n" for each in lines
    )
    target.write_text(text)


def check_imports(site: Path) -> None:
    """Every module of the package can be imported where it is installed."""
    names = []
    for path in sorted(site.rglob("*.py")):
        parts = path.relative_to(site).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    for name in names:
        importlib.import_module(name)
    print(f"{len(names)} modules were imported from {site}")


def compile_modules(root: Path, site: Path) -> None:
    """As Fedora does: with time stamps, none of them younger than SOURCE_DATE_EPOCH, at both levels."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    below = root / site.relative_to("/")
    if not below.is_dir():
        return
    for path in below.rglob("*.py"):
        if epoch and path.stat().st_mtime > epoch:
            os.utime(path, (epoch, epoch))
    good = compileall.compile_dir(
        below, quiet=1, force=True, stripdir=str(root), prependdir="/", optimize=[0, 1],
        invalidation_mode=PycInvalidationMode.TIMESTAMP, workers=1, hardlink_dupes=True,
    )  # fmt: skip
    if not good:
        raise SystemExit("pyproject.py: a module does not compile")


def list_provided(site: Path) -> Iterator[str]:
    """What rpm's generator would say of Debian's own Python packages."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for path in sorted([*site.glob("*.dist-info"), *site.glob("*.egg-info")]):
        found = PathDistribution(path)
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        for python in ("3", version):
            yield f"python{python}dist({name}) = {found.version}"


def main(arguments: list[str]) -> None:
    """One verb, its paths."""
    verb, *rest = arguments
    if verb == "build-requirements":
        print("\n".join(list_build_requirements()))
    elif verb == "provides":
        print("\n".join(list_provided(Path(rest[0]))))
    elif verb == "finish-installation":
        finish_installation(Path(rest[0]))
    elif verb == "save-files":
        save_files(Path(rest[0]), Path(rest[1]), Path(rest[2]), rest[3:])
    elif verb == "check-imports":
        check_imports(Path(rest[0]))
    elif verb == "compile":
        compile_modules(Path(rest[0]), Path(rest[1]))
    else:
        raise SystemExit(f"pyproject.py: no such verb: {verb}")


if __name__ == "__main__":
    main(sys.argv[1:])
