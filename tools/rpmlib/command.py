"""The command line of tools/rpm."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rpmlib.building import BuildError, has_fedora_macros, open_builder
from rpmlib.sources import CHECKOUT, NAME, SourceError, archive_commit, archive_tree, read_version

_STREAM = Path("-")


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/rpm",
        description="Makes RPM packages of this checkout: with this system's rpmbuild where it has Fedora's macros, "
        "else in a private machine. Without options: of the commit that HEAD is, with the unit tests.",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("dist"), help="directory for them (default: %(default)s)"
    )
    parser.add_argument(
        "--source", action="store_true", help="only the source archive and the source package"
    )
    parser.add_argument(
        "--tree", action="store_true", help="of the files as they lie there, committed or not"
    )
    parser.add_argument("--no-check", action="store_true", help="without the unit tests")
    parser.add_argument(
        "--version", help="a version to build the tree as, instead of its own; implies --tree"
    )
    parser.add_argument(
        "--here", action="store_true", help="with this system's rpmbuild, whatever macros it has"
    )
    parser.add_argument("--archive", type=Path, help="build this source archive; - is standard input")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Build; the packages' names are printed."""
    options = build_parser().parse_args(arguments)
    try:
        version: str = options.version or read_version()
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-rpm-") as directory:
            os.chmod(directory, 0o755)  # what builds may be another user
            archive = Path(directory) / f"{NAME}-{version}.tar.gz"
            _make_archive(options, archive, version)
            if options.here or has_fedora_macros():
                _build_here(options, archive, version, Path(directory) / "rpmbuild")
                return 0
            return _build_in_machine(options, archive, version)
    except (SourceError, BuildError) as error:
        print(f"tools/rpm: {error}", file=sys.stderr)
        return 1


def _make_archive(options: argparse.Namespace, archive: Path, version: str) -> None:
    if options.archive == _STREAM:
        archive.write_bytes(sys.stdin.buffer.read())
    elif options.archive:
        shutil.copy(options.archive, archive)
    elif options.tree or options.version:
        archive_tree(archive, version)
    elif archive_commit(archive):
        print("tools/rpm: of HEAD, without what is not committed (--tree takes it)", file=sys.stderr)


def _build_here(options: argparse.Namespace, archive: Path, version: str, top: Path) -> None:
    builder = open_builder(top)
    packages = builder.build(archive, version, check=not options.no_check, source_only=options.source)
    found = [archive, *packages] if options.source else packages
    if options.output == _STREAM:
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as stream:
            for path in found:
                stream.add(path, path.name)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    for path in found:
        print(shutil.copy(path, options.output))


def _build_in_machine(options: argparse.Namespace, archive: Path, version: str) -> int:
    """Hand the archive into a machine and take the packages out, both as streams: it sees the checkout, and no more."""
    passed = ["--here", "--archive", "-", "--output", "-", "--version", version]
    passed += [f"--{name}" for name in ("source", "no-check") if getattr(options, name.replace("-", "_"))]
    machine = [str(CHECKOUT / "tools/machine"), "run", "--rpm", "--bare", "--user", "root", "--"]
    with archive.open("rb") as stdin:
        done = subprocess.run(
            [*machine, "/checkout/tools/rpm", *passed], stdin=stdin, stdout=subprocess.PIPE, check=False
        )
    if done.returncode != 0:
        return done.returncode
    options.output.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as stream:
        for entry in stream:
            file = stream.extractfile(entry)
            if file is not None:
                target = options.output / Path(entry.name).name
                target.write_bytes(file.read())
                print(target)
    return 0
