"""``compat/docker`` and ``compat/podman``: scripts that stand for usercontainer, by each shell that sh may be."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

COMPAT = Path(__file__).resolve().parents[3] / "compat"
NAMES = ("docker", "podman")
SHELLS = [
    shell for shell in ("dash", "bash --posix", "busybox sh", "ksh", "mksh") if shutil.which(shell.split()[0])
]
WORDS = ["run", "", "a b", "$(touch x)", "--x=*", "-n", "\n"]
SAID = "is usercontainer here"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where ``usercontainer`` prints each of its arguments on a line of its own, in brackets."""
    if any(Path(path).exists() for path in ("/etc/containers/nodocker", "/etc/usercontainerd/nodocker")):
        pytest.skip("this machine wants nothing said")
    for name in ("home", "bin"):
        (tmp_path / name).mkdir()
    command = tmp_path / "bin" / "usercontainer"
    command.write_text("#!/bin/sh\nprintf '[%s]\\n' \"$@\"\nexit 7\n")
    command.chmod(0o755)
    return tmp_path


def environment(place: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(place / "home"), "PATH": f"{place / 'bin'}:{os.environ['PATH']}", **more}


def run_script(
    name: str,
    variables: dict[str, str],
    *,
    shell: str = "sh",
    words: list[str] = WORDS,
    terminal: bool = True,
) -> tuple[int, str, str]:
    """Return status, standard output, and what was seen on standard error."""
    command = [*shell.split(), str(COMPAT / name), *words]
    if not terminal:
        result = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=60, check=False
        )
        return result.returncode, result.stdout, result.stderr
    master, slave = pty.openpty()
    try:
        result = subprocess.run(
            command, env=variables, stdout=subprocess.PIPE, stderr=slave, text=True, timeout=60, check=False
        )
        os.set_blocking(master, False)
        try:
            seen = os.read(master, 65536).decode()
        except BlockingIOError:
            seen = ""
    finally:
        os.close(master)
        os.close(slave)
    return result.returncode, result.stdout, seen


PASSED = (7, "".join(f"[{word}]\n" for word in WORDS))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_status_are_passed_on(name: str, shell: str, place: Path) -> None:
    for terminal in (True, False):
        status, output, _ = run_script(name, environment(place), shell=shell, terminal=terminal)
        assert (status, output) == PASSED
    assert not Path("x").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_said_once(shell: str, place: Path) -> None:
    variables = environment(place)
    seen = [run_script(name, variables, shell=shell)[2] for name in ("docker", "docker", "podman")]
    assert seen[0].startswith(f"docker {SAID}") and seen[1:] == ["", ""]
    marker = place / "home/.local/state/usercontainerd/told-of-docker"
    assert stat.S_IMODE(marker.parent.stat().st_mode) == 0o700


def test_nothing_is_said_to_scripts(place: Path) -> None:
    assert run_script("podman", environment(place), terminal=False) == (*PASSED, "")
    assert list((place / "home").iterdir()) == []  # nor has the user been told by that


@pytest.mark.parametrize(("state", "used"), [("state", True), ("relative", False)])
def test_the_state_directory(state: str, used: bool, place: Path) -> None:
    """A path that is not absolute does not count (XDG Base Directory Specification)."""
    variable = str(place / state) if used else state
    assert SAID in run_script("docker", environment(place, XDG_STATE_HOME=variable))[2]
    assert (place / state / "usercontainerd/told-of-docker").exists() == used
    assert (place / "home/.local").exists() != used


@pytest.mark.parametrize("shell", SHELLS)
def test_a_home_that_keeps_nothing(shell: str, place: Path) -> None:
    for home in ("/dev/null", "/proc/nosuch", ""):
        status, output, seen = run_script("docker", environment(place) | {"HOME": home}, shell=shell)
        assert (status, output) == PASSED
        assert seen.count("\n") == 1 and SAID in seen
    variables = environment(place, XDG_STATE_HOME="/dev/null/state")  # else bash finds the home by itself
    del variables["HOME"]
    status, output, seen = run_script("docker", variables, shell=shell)
    assert (status, output) == PASSED and SAID in seen


def test_two_at_once_say_it_once(place: Path) -> None:
    master, slave = pty.openpty()
    try:
        processes = [
            subprocess.Popen(
                ["sh", str(COMPAT / "docker")],
                env=environment(place),
                stdout=subprocess.DEVNULL,
                stderr=slave,
            )
            for _ in range(20)
        ]
        assert [process.wait(timeout=60) for process in processes] == [7] * 20
        assert os.read(master, 65536).decode().count(SAID) == 1
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_are_executable_shell(name: str) -> None:
    text = (COMPAT / name).read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n") and text.endswith('exec usercontainer "$@"\n')
    assert os.access(COMPAT / name, os.X_OK)
    # By this the completion scripts know that a docker is ours.
    assert "usercontainer(1)" in text.splitlines()[1]
