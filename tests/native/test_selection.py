"""``start``, ``stop``, ``restart`` and ``rm`` of those that ``--all``, ``--filter`` and their like mean."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, run

NAMES = ("one", "three", "two")


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("usercontainer", *arguments, check=False)


@pytest.fixture(autouse=True)
def containers(tmp_path: Path) -> Iterator[None]:
    """Three containers and no other, of which one and three have the label kind=odd; two was made last."""
    cli("rm", "-f", "--all")
    cli("pull", "-q", BUSYBOX)
    for name in ("one", "three", "two"):
        label = ("--label", "kind=odd") if name != "two" else ()
        cli("create", "--name", name, "--cidfile", str(tmp_path / name), *label, BUSYBOX, "sleep", "1000")
    yield
    cli("rm", "-f", "--ignore", *NAMES, "defined")
    (Path.home() / ".config/usercontainerd/containers/defined.toml").unlink(missing_ok=True)
    cli("rm", "-f", "--ignore", "defined")


def words(*arguments: str) -> list[str]:
    result = cli(*arguments)
    assert result.returncode == 0, result.stderr
    return sorted(result.stdout.split())


def running() -> list[str]:
    return words("ps", "--noheading", "--format", "{{.Names}}")


def test_all() -> None:
    assert words("start", "one") == ["one"]
    assert words("start", "--all") == ["three", "two"]
    assert running() == list(NAMES)
    assert words("stop", "--all", "-t", "1") == list(NAMES)
    assert words("stop", "-a") == []
    assert words("restart", "--running") == []
    assert words("start", "one") == ["one"]
    assert words("restart", "--running", "-t", "1") == ["one"]
    assert words("rm", "-a", "-f") == list(NAMES)
    assert words("ps", "-a", "-q") == []


def test_filters_and_the_latest() -> None:
    assert words("start", "--filter", "label=kind=odd") == ["one", "three"]
    assert words("stop", "-f", "name=^three$", "-t", "1") == ["three"]
    assert words("restart", "--latest") == ["two"]
    assert running() == ["one", "two"]
    assert words("rm", "--filter", "status=created", "--filter", "name=three") in ([], ["three"])
    assert "no filter" in cli("stop", "--filter", "nosuch=x").stderr


def test_ids_from_files(tmp_path: Path) -> None:
    identity = (tmp_path / "one").read_text()
    assert words("restart", "--cidfile", str(tmp_path / "one")) == [identity]
    assert running() == ["one"]
    assert words("stop", "-t", "1", "--cidfile", str(tmp_path / "one"), "two") == sorted([identity, "two"])
    (tmp_path / "empty").touch()
    for name, message in (("nosuch", "No such file"), ("empty", "no container's ID")):
        assert message in cli("rm", "--cidfile", str(tmp_path / name)).stderr


def test_a_definition_stays() -> None:
    directory = Path.home() / ".config/usercontainerd/containers"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "defined.toml").write_text(f'image = "{BUSYBOX}"\n')
    assert words("rm", "--all") == list(NAMES)
    assert words("ps", "-a", "--noheading", "--format", "{{.Names}}") == ["defined"]


def test_force_with_time() -> None:
    words("start", "one")
    assert "--time is for --force" in cli("rm", "-t", "1", "one").stderr
    assert words("rm", "-f", "-t", "1", "one") == ["one"]


def test_ignored() -> None:
    assert cli("stop", "nosuch").returncode != 0
    assert words("stop", "--ignore", "nosuch") == []


@pytest.mark.parametrize(
    "arguments", [("--all", "one"), ("--all", "--latest"), ("--filter", "name=x", "one")]
)
def test_one_way_at_a_time(arguments: tuple[str, ...]) -> None:
    result = cli("stop", *arguments)
    assert result.returncode == 125 and "says which containers are meant" in result.stderr


def test_containers_and_nothing_else() -> None:
    """`container inspect` and `container exists` know no images."""
    assert words("container", "inspect", "-f", "{{.Name}}", "one") in (["one"], ["/one"])
    assert cli("container", "inspect", BUSYBOX).returncode == 1
    assert [cli("container", "exists", name).returncode for name in ("one", "nosuch", BUSYBOX)] == [0, 1, 1]


def test_order_of_ps() -> None:
    shown = ("ps", "-a", "--noheading", "--format", "{{.Names}}")
    assert cli(*shown, "--sort", "names").stdout.split() == list(NAMES)
    assert cli(*shown, "--sync", "--external").stdout.split() == ["two", "three", "one"]
    assert "possible are command" in cli(*shown, "--sort", "size").stderr
