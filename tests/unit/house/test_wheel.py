"""What pip installs: the whole package and all that `usercontainer setup` puts into place, by wheel and by sdist."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from usercontainerd.base.programs import SHIPPED
from usercontainerd.engine.setup.installation import RULES, Kind, select_names

TOP = Path(__file__).resolve().parents[3]
# A checkout's own, and what tools leave in it.
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "bench", "tests", "docs")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
# The command has an entry point; a second copy of it would be of no use to anyone.
SOURCES = sorted({rule.source for rule in RULES if rule.kind is not Kind.COMMAND})


# ./check has it; a distribution's Python may not.
pytest.importorskip("setuptools.build_meta", reason="python3-setuptools is not installed")


def build(kind: str, directory: Path, target: Path) -> Path:
    """Build a ``wheel`` or an ``sdist`` of what is in ``directory``, without any network."""
    target.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(target)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return target / result.stdout.splitlines()[-1]


def read_wheel(path: Path) -> dict[str, bytes]:
    """Its files; RECORD lists them again."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("checkout") / "copy"
    shutil.copytree(TOP, target, ignore=IGNORED)
    return target


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return read_wheel(build("wheel", checkout, tmp_path_factory.mktemp("wheel") / "dist"))


def test_the_wheel_has_every_module(wheel: dict[str, bytes]) -> None:
    there = {name for name in wheel if name.endswith(".py")}
    assert there == {str(path.relative_to(TOP)) for path in (TOP / "usercontainerd").rglob("*.py")}


def test_the_wheel_has_all_that_setup_installs(wheel: dict[str, bytes]) -> None:
    for rule in RULES:
        if rule.kind is Kind.COMMAND or not (TOP / rule.source).is_dir():
            continue
        for name in select_names(rule, os.listdir(TOP / rule.source)):
            shipped = wheel.get(f"usercontainerd/{SHIPPED}/{rule.source}/{name}")
            assert shipped == (TOP / rule.source / name).read_bytes(), f"{rule.source}/{name}: see setup.cfg"


def test_every_source_directory_has_its_file_in_some_rule() -> None:
    for source in SOURCES:
        if (TOP / source).is_dir():
            names = {path.name for path in (TOP / source).iterdir() if path.is_file()}
            taken = {name for rule in RULES if rule.source == source for name in select_names(rule, names)}
            assert names - taken == set(), f"{source}: no rule of engine/setup/installation.py takes it"


def test_a_wheel_made_of_the_sdist_is_the_same(
    checkout: Path, wheel: dict[str, bytes], tmp_path: Path
) -> None:
    sdist = build("sdist", checkout, tmp_path / "sdist")
    # Not by tarfile: Debian 12's Python 3.11.2 has no filters, and Python 3.14 warns of an archive without one.
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "unpacked", "-xf", sdist], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = read_wheel(build("wheel", unpacked, tmp_path / "wheel"))
    assert again.keys() == wheel.keys()
    assert [name for name in wheel if wheel[name] != again[name]] == []
    assert (unpacked / "tools/install").exists()  # what a spec file calls


def test_the_version_is_told_once() -> None:
    from usercontainerd import __version__

    configuration = configparser.ConfigParser()
    configuration.read(TOP / "setup.cfg")
    assert configuration["metadata"]["version"] in (__version__, "attr: usercontainerd.__version__")
