"""Several processes create, start, restart, kill and remove the same containers at once: in the end nothing is left."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, run, wait_until

SEED = int(os.environ.get("SEED", "1"))
TURNS = int(os.environ.get("TURNS", "8"))  # of each actor; by hand, hundreds
ACTORS = 3
DATA = Path.home() / ".local/share/usercontainerd"
RUNTIME = Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd"
COMMANDS = (
    ("sleep", "1000"),
    ("sh", "-c", "trap 'exit 0' TERM; while :; do echo tick; sleep 0.1; done"),
    ("sh", "-c", "sleep 1000 & (sleep 500; sleep 500) & wait"),
    ("sh", "-c", "echo at once; exit 3"),
)


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    run("usercontainer", "pull", "-q", BUSYBOX)
    made = (f"raced-{os.urandom(2).hex()}", f"raced-{os.urandom(2).hex()}")
    yield made
    run("usercontainer", "rm", "-f", *made)
    run("systemctl", "--user", "reset-failed", *(f"container@{name}" for name in made), check=False)


def plan_turn(rnd: random.Random, name: str) -> list[str]:
    """The words of one command that somebody gives."""
    tool, systemctl, unit = "usercontainer", ("systemctl", "--user"), f"container@{name}"
    create = [
        tool,
        "create",
        "--name",
        name,
        "--network",
        rnd.choice(("none", "pasta")),
        "--stop-timeout",
        "1",
    ]
    create += ["--restart", "always"] if rnd.random() < 0.3 else []
    turns = (
        ([*create, BUSYBOX, *rnd.choice(COMMANDS)], 4),
        ([tool, "start", name], 4),
        ([*systemctl, "start", unit], 2),
        ([tool, "exec", name, "true"], 1),
        ([tool, "restart", "-t", "0", name], 1),
        ([tool, "stop", "-t", "0", name], 1),
        ([*systemctl, "kill", "--signal=KILL", unit], 2),
        ([tool, "rm", "-f", name], 3),
        ([*systemctl, "daemon-reload"], 1),
    )
    return rnd.choices([words for words, _ in turns], [weight for _, weight in turns])[0]


def act(number: int, names: tuple[str, str]) -> list[str]:
    """Give some commands; most may fail, since others are faster. Returns what must not be said by any."""
    rnd = random.Random(SEED * 100 + number)
    wrong = []
    for _ in range(TURNS):
        words = plan_turn(rnd, rnd.choice(names))
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if "Traceback" in done.stderr:
            wrong.append(f"{words}: {done.stderr}")
    return wrong


def list_remains(name: str) -> list[str]:
    """Files, and a unit that is not at rest. That one may have failed: it was started when there was no container."""
    places = (DATA / "containers", RUNTIME / "containers", RUNTIME / "crun")
    found = [str(place / name) for place in places if (place / name).exists()]
    words = ("list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,reloading")
    return [*found, *run("systemctl", "--user", *words, f"container@{name}.service").stdout.splitlines()]


def test_the_same_containers_in_many_hands(names: tuple[str, str]) -> None:
    with ThreadPoolExecutor(ACTORS) as pool:
        said = list(pool.map(lambda number: act(number, names), range(ACTORS)))
    assert said == [[]] * ACTORS
    for name in names:
        run("usercontainer", "rm", "-f", name)
        wait_until(lambda name=name: list_remains(name) == [], f"{name} is gone")  # type: ignore[misc]
        # The name is as good as new.
        run("usercontainer", "create", "--name", name, "--network", "none", BUSYBOX, "sleep", "1000")
        run("usercontainer", "start", name)
        run("usercontainer", "exec", name, "true")
        run("usercontainer", "rm", "-f", name)
    assert run("usercontainer", "system", "check", "--quick").returncode == 0
