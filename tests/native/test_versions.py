"""Other versions: what one has started, made or written, in the hands of another."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bus import MANAGER, NAME, ROOT, busctl
from tests.support.containers import BUSYBOX, Container, run, wait_until
from tests.support.places import Place
from usercontainerd import __version__

Make = Callable[..., Container]
SLEEPER = (
    f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "echo > /written; exec sleep 1000"]\n'
    'network = "none"\nstop_timeout = 1\n'
)
DATA = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")) / "usercontainerd"


def find_bundle(name: str) -> Path:
    return Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd/containers" / name


def rewrite(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def pretend_older(bundle: Path) -> None:
    rewrite(
        bundle / "plan",
        f"usercontainerd-plan 1 {__version__}\n",
        "usercontainerd-plan 1 0.0.7\nforgotten key\n",
    )


def pretend_newer(bundle: Path) -> None:
    rewrite(bundle / "plan", "usercontainerd-plan 1 ", "usercontainerd-plan 2 1")
    rewrite(bundle / "summary", "usercontainerd-summary 1\n", "usercontainerd-summary 2\n")


@pytest.mark.parametrize("pretend", [pretend_older, pretend_newer])
def test_a_container_that_another_version_has_started(
    container: Make, pretend: Callable[[Path], None]
) -> None:
    one = container(SLEEPER)
    one.start()
    layer = DATA / "containers" / one.name / "layer"
    wait_until(lambda: (layer / "upper/written").exists(), "the container has written")
    pid = one.pid
    pretend(find_bundle(one.name))

    assert run("usercontainer", "exec", one.name, "sh", "-c", "echo from $$; ls /written").stdout.endswith(
        "/written\n"
    )
    (seen,) = json.loads(run("usercontainer", "inspect", one.name).stdout)
    assert (seen["State"]["Status"], seen["State"]["Pid"]) == ("running", pid)
    lines = run("usercontainer", "ps", "--format", "{{.Names}} {{.State}} {{.Image}}").stdout
    assert f"{one.name} running {BUSYBOX}" in lines
    run("usercontainer", "logs", one.name)

    run("usercontainer", "stop", one.name)
    assert not find_bundle(one.name).joinpath("pid").exists()
    if pretend is pretend_older:  # a plan that cannot be read may say that the layer is to be kept
        assert not layer.exists()

    one.start()
    wait_until(lambda: (layer / "upper/written").exists(), "the container has written again")
    first = (find_bundle(one.name) / "plan").read_text(encoding="utf-8").split("\n")[0]
    assert first == f"usercontainerd-plan 1 {__version__}"


def test_the_end_of_what_another_version_has_started(container: Make) -> None:
    one = container(SLEEPER)
    one.start()
    pretend_newer(find_bundle(one.name))
    os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: one.has_ended, "it has ended")
    assert run("usercontainer", "inspect", "-f", "{{.State.ExitCode}}", one.name).stdout == "137\n"


def test_a_store_of_a_later_version(store_place: Place) -> None:
    store_place.run("pull", "-q", BUSYBOX)
    (store_place.root / "format").write_text("usercontainerd-store 7\n", encoding="ascii")
    for words in (
        ["images"],
        ["pull", BUSYBOX],
        ["rmi", BUSYBOX],
        ["system", "check", "--repair"],
        ["image", "prune", "-af"],
    ):
        told = store_place.run(*words, check=False)
        assert told.returncode != 0, words
        assert "a later version of usercontainerd has made this store: its format is 7" in told.stderr, words
        assert "install the later version again" in told.stderr, words
    (store_place.root / "format").write_text("usercontainerd-store 1\n", encoding="ascii")
    assert store_place.run("system", "check").stderr == "the store is whole\n"


def test_a_store_of_a_later_version_over_the_bus(container: Make) -> None:
    one = container(SLEEPER)
    one.start()
    form = Path.home() / ".local/share/usercontainerd/format"
    before = form.read_text(encoding="ascii")
    run("systemctl", "--user", "stop", "usercontainerd")
    form.write_text("usercontainerd-store 7\n", encoding="ascii")
    try:
        listed = busctl("call", NAME, ROOT, MANAGER, "ListContainers", "a{sv}", "0")
        assert one.name in listed.stdout, listed.stderr
        told = busctl("call", NAME, ROOT, MANAGER, "ListImages", "a{sv}", "0")
        assert told.returncode != 0
        assert "a later version of usercontainerd has made this store" in told.stderr
    finally:
        form.write_text(before, encoding="ascii")
    run("systemctl", "--user", "reload", "usercontainerd")
    wait_until(
        lambda: busctl("call", NAME, ROOT, MANAGER, "ListImages", "a{sv}", "0").returncode == 0,
        "it reads the store again",
    )
