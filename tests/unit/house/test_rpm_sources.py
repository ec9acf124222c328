"""The source archives that RPM packages are built of: what is in them, and that they can be made again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(TOP / "tools"))

from rpmlib.sources import SourceError, archive_commit, archive_tree, read_version  # noqa: E402


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small one: what says the version, a program, and what git leaves out."""
    target = tmp_path / "checkout"
    files = {
        ".gitignore": "__pycache__/\n*.pyc\ndist/\n",
        "usercontainerd/__init__.py": '__version__ = "1.2.3"\n',
        "packaging/rpm/usercontainerd.spec": "Name:     usercontainerd\nVersion:  1.2.3\n",
        "bin/usercontainer": "#!/usr/bin/python3 -IS\n",
        "usercontainerd/__pycache__/x.pyc": "",
        "dist/old.rpm": "",
        ".git/config": "",
    }
    for name, text in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
    (target / "bin/usercontainer").chmod(0o755)
    return target


def read(archive: Path) -> dict[str, tuple[str, int, int]]:
    with tarfile.open(archive) as opened:
        return {
            entry.name: (opened.extractfile(entry).read().decode(), entry.mode, entry.uid)  # type: ignore[union-attr]
            for entry in opened
            if entry.isreg()
        }


def test_a_tree_without_what_git_ignores(checkout: Path, tmp_path: Path) -> None:
    archive_tree(tmp_path / "a.tar.gz", "1.2.3", checkout)
    found = read(tmp_path / "a.tar.gz")
    assert sorted(found) == [
        "usercontainerd-1.2.3/.gitignore",
        "usercontainerd-1.2.3/bin/usercontainer",
        "usercontainerd-1.2.3/packaging/rpm/usercontainerd.spec",
        "usercontainerd-1.2.3/usercontainerd/__init__.py",
    ]
    assert found["usercontainerd-1.2.3/bin/usercontainer"] == ("#!/usr/bin/python3 -IS\n", 0o755, 0)


def test_a_tree_as_another_version(checkout: Path, tmp_path: Path) -> None:
    archive_tree(tmp_path / "a.tar.gz", "0.9", checkout)
    found = read(tmp_path / "a.tar.gz")
    assert found["usercontainerd-0.9/usercontainerd/__init__.py"][0] == '__version__ = "0.9"\n'
    assert "Version:  0.9\n" in found["usercontainerd-0.9/packaging/rpm/usercontainerd.spec"][0]


def test_the_same_tree_gives_the_same_archive(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy)
    archive_tree(tmp_path / "a.tar.gz", "1.2.3", checkout)
    archive_tree(tmp_path / "b.tar.gz", "1.2.3", copy)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    (copy / "bin/usercontainer").chmod(0o644)
    archive_tree(tmp_path / "b.tar.gz", "1.2.3", copy)
    assert (tmp_path / "a.tar.gz").read_bytes() != (tmp_path / "b.tar.gz").read_bytes()


def test_versions_that_differ_are_named(checkout: Path) -> None:
    assert read_version(checkout) == "1.2.3"
    (checkout / "usercontainerd/__init__.py").write_text('__version__ = "1.2.4"\n')
    with pytest.raises(SourceError, match=r"usercontainerd/__init__\.py: 1\.2\.4, .*spec: 1\.2\.3"):
        read_version(checkout)
    (checkout / "usercontainerd/__init__.py").write_text("")
    with pytest.raises(SourceError, match="does not say the version"):
        read_version(checkout)


def test_no_repository_is_said(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="git"):
        archive_commit(tmp_path / "a.tar.gz", checkout)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_commit_and_what_is_not_in_it(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "x")):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    assert archive_commit(tmp_path / "a.tar.gz", checkout) is False
    assert "usercontainerd-1.2.3/bin/usercontainer" in read(tmp_path / "a.tar.gz")
    (checkout / "new").write_text("")
    assert archive_commit(tmp_path / "b.tar.gz", checkout) is True
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
