"""RPM packages built from this tree, and a system that has none, an older, the newer, and none again: in this order."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, run
from tests.support.login import as_alice, find_daemon, show_unit, write_definition

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from rpmlib.building import Builder, install_stand_ins  # noqa: E402
from rpmlib.sources import archive_tree, read_version  # noqa: E402

OLDER = "0.0.9"
NEWER = read_version()
NAMES = ("usercontainerd", "usercontainerd-docker", "usercontainerd-podman", "usercontainerd-selinux")
WORK = Path("/var/tmp/rpm-lane")
BUILDER = "alice"


@dataclass(frozen=True)
class Built:
    """What three builds gave: the newer version twice, and the older once."""

    newer: list[Path]
    again: list[Path]
    older: list[Path]
    log: str

    def find(self, name: str, packages: list[Path] | None = None) -> Path:
        """The binary package of that name, of the newer if nothing else is said."""
        for path in packages or self.newer:
            if path.name.endswith(".noarch.rpm") and path.name.rsplit("-", 2)[0] == name:
                return path
        raise AssertionError(f"no package {name} was built")


def hash_file(path: Path) -> str:
    """By which two builds are compared."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def built() -> Built:
    """All packages; the unit tests run in the second build of the newer."""
    WORK.mkdir(parents=True)
    install_stand_ins(WORK / "stand-ins")
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(build, "older", OLDER, check=False)
        # At one place, one after the other: source packages have the specification with its paths expanded.
        again = build("newer", NEWER, check=False)
        (WORK / "newer").rename(WORK / "once-more")
        newer = build("newer", NEWER, check=True)
        log = (WORK / "newer/build.log").read_text()
        return Built(
            newer,
            [WORK / "once-more" / path.relative_to(WORK / "newer") for path in again],
            older.result(),
            log,
        )


def build(place: str, version: str, *, check: bool) -> list[Path]:
    """Build the tree as it is, as some version."""
    archive = WORK / f"{place}.tar.gz"
    archive_tree(archive, version)
    return Builder(WORK / place, BUILDER).build(archive, version, check=check)


def run_dnf(packages: list[Path], verb: str, *names: str) -> None:
    """Let dnf do something with a repository of these packages, and no other."""
    repository = packages[0].parent
    run("createrepo_c", "--quiet", "--update", str(repository), timeout=120)
    options = (f"--repofrompath=local,{repository}", "--repo=local", "--nogpgcheck", "--releasever=1")
    run("dnf", "--assumeyes", "--refresh", *options, verb, *names, timeout=120)


@dataclass
class Life:
    """What is known of the container that lives through all this."""

    unit: str = "container@app.service"
    pid: int = 0
    daemon: int = 0


DEFINITION = f"""\
image = "{BUSYBOX}"
command = ["sh", "-c", "trap 'exit 0' TERM; echo started; while :; do sleep 0.2; done"]
"""


def define(name: str, text: str = DEFINITION) -> None:
    """Write a definition of alice's, and have the generator see it."""
    write_definition(name, text)


@pytest.fixture(scope="session")
def older(built: Built) -> Life:
    """The older version is installed, and a container of it runs."""
    run_dnf(built.older, "install", *NAMES)
    life = Life()
    define("app")
    as_alice("systemctl", "--user", "start", life.unit)
    life.pid = int(show_unit(life.unit, "MainPID"))
    life.daemon = find_daemon()
    return life


@pytest.fixture(scope="session")
def newer(older: Life, built: Built) -> Life:
    """The packages were upgraded under the running container, and the daemon."""
    as_alice("usercontainer", "exec", "app", "touch", "/written-before")
    older.daemon = find_daemon()
    run_dnf(built.newer, "upgrade")
    return older


@pytest.fixture(scope="session")
def removed(newer: Life) -> Life:
    """The packages were removed under a running container."""
    as_alice("systemctl", "--user", "start", newer.unit)
    newer.pid = int(show_unit(newer.unit, "MainPID"))
    newer.daemon = find_daemon()
    run("dnf", "--assumeyes", "--releasever=1", "--disablerepo=*", "remove", *NAMES, timeout=120)
    return newer
