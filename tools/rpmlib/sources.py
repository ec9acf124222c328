"""The source archive that the spec builds from, and the spec itself, for any version."""

from __future__ import annotations

import fnmatch
import gzip
import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "usercontainerd"
SPEC = f"packaging/rpm/{NAME}.spec"

# The places that say which version it is.
_VERSIONS = {
    f"{NAME}/__init__.py": re.compile(r'^(__version__ = ")([^"]+)', re.MULTILINE),
    SPEC: re.compile(r"^(Version: +)(\S+)$", re.MULTILINE),
}


class SourceError(Exception):
    """There is no archive to be made; the text says why."""


def read_version(checkout: Path = CHECKOUT) -> str:
    """The version of the checkout, on which all places agree."""
    found = {}
    for name, pattern in _VERSIONS.items():
        match = pattern.search((checkout / name).read_text())
        if match is None:
            raise SourceError(f"{name} does not say the version ({pattern.pattern})")
        found[name] = match.group(2)
    if len(set(found.values())) != 1:
        raise SourceError(
            f"the versions differ: {', '.join(f'{name}: {each}' for name, each in found.items())}"
        )
    return found[SPEC]


def archive_commit(target: Path, checkout: Path = CHECKOUT) -> bool:
    """Write what HEAD has, by git archive: the archive of a release. True if the tree has changes that it has not."""
    prefix = f"{NAME}-{read_version(checkout)}/"
    _write_gzip(target, _run_git(checkout, "archive", "--format=tar", f"--prefix={prefix}", "HEAD"))
    return bool(_run_git(checkout, "status", "--porcelain"))


def _run_git(checkout: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise SourceError("there is no git here; --tree does without") from None
    if done.returncode != 0:
        raise SourceError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def archive_tree(target: Path, version: str, checkout: Path = CHECKOUT) -> None:
    """Write the files as they lie there, git or not, committed or not, as another version if that is wanted."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in list_files(checkout):
            entry = archive.gettarinfo(checkout / name, f"{NAME}-{version}/{name}")
            entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, "root", "root"
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            entry.mtime = int(entry.mtime)
            content = render_as(name, version, checkout).encode() if name in _VERSIONS else b""
            if not content and entry.isreg():
                content = (checkout / name).read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    _write_gzip(target, buffer.getvalue())


def render_as(name: str, version: str, checkout: Path = CHECKOUT) -> str:
    """A file of the checkout that says ``version``."""
    text = (checkout / name).read_text()
    return _VERSIONS[name].sub(lambda match: match.group(1) + version, text, count=1)


def list_files(checkout: Path) -> Iterator[str]:
    """What git would have, by .gitignore's plain patterns."""
    lines = (checkout / ".gitignore").read_text().split()
    ignored = [".git", *(line.rstrip("/") for line in lines)]

    def walk(directory: Path) -> Iterator[Path]:
        for path in sorted(directory.iterdir()):
            if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in ignored):
                continue
            if path.is_dir() and not path.is_symlink():
                yield from walk(path)
            else:
                yield path

    return (str(path.relative_to(checkout)) for path in walk(checkout))


def _write_gzip(target: Path, content: bytes) -> None:
    # Neither a name nor a time in it: the same files give the same archive.
    target.write_bytes(gzip.compress(content, mtime=0))
