"""Many processes at once on one store: pulls, loads, removals, prunes, tags, checks and containers.

For a few seconds here; ``SECONDS=300 SEED=5`` in the environment makes it as long as one likes (see HACKING.md).
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.containers import Container, run
from tests.support.fakeregistry import build_tar, file
from tests.support.images import ImageMaker
from tests.support.places import Place
from usercontainerd.engine.checking import check_store

DURATION = float(os.environ.get("SECONDS", "12"))
SEED = int(os.environ.get("SEED", "1"))
MARK = "hello from the image\n"

# What others may do to us: the image is not here (any more), it is used, or somebody is at it just now.
EXPECTED = re.compile(
    r"there is no image|has just been removed|has just got the name|is used by|another process is working on it"
    r"|has no name|was removed just now|a layer of the image \S+ is missing|has several names"
)


class Actors:
    """Threads that each run verbs in real processes until time is up; what they saw is counted."""

    def __init__(self, place: Place, names: Sequence[str], archive: str) -> None:
        self.place = place
        self.names = names
        self.archive = archive
        self.seen: Counter[str] = Counter()
        self.problems: list[str] = []
        self.end = time.monotonic() + DURATION

    def run(self, *words: str, allowed: Sequence[int] = (0,)) -> bool:
        """Run a verb; any failure but the expected ones is a problem."""
        result = self.place.run(*words, check=False)
        good = result.returncode in allowed
        self.seen[f"{words[0]} {'fine' if result.returncode == 0 else 'refused'}"] += 1
        if not good and not EXPECTED.search(result.stderr):
            self.problems.append(f"{words}: {result.returncode} {result.stdout} {result.stderr}")
        return result.returncode == 0

    def pull(self, source: random.Random) -> None:
        self.run("pull", "-q", source.choice(self.names))

    def load(self, _source: random.Random) -> None:
        self.run("load", "-q", "-i", self.archive)

    def remove(self, source: random.Random) -> None:
        # Never by force: that would stop the containers.
        self.run(
            "rmi", source.choice([*self.names, "localhost/archived", "localhost/other:1"]), allowed=(0, 1, 2)
        )

    def prune(self, source: random.Random) -> None:
        self.run("image", "prune", "-f", *source.choice([(), (), ("-a",)]))

    def tag(self, source: random.Random) -> None:
        if self.run("tag", source.choice(self.names), "localhost/other:1") and source.random() < 0.5:
            self.run("untag", "localhost/other:1", allowed=(0, 1))

    def check(self, source: random.Random) -> None:
        repair = source.choice([(), ("--repair", "--max", "0")])
        result = self.place.run("system", "check", "--format", "json", "--quick", *repair, check=False)
        damage = [each for each in json.loads(result.stdout) if each["severity"] == "damage"]
        self.seen["check"] += 1
        if damage:
            self.problems.append(f"system check {repair}: {damage}")

    def play(self, number: int, actions: Sequence[str]) -> None:
        source = random.Random(f"{SEED}-{number}")
        while time.monotonic() < self.end and not self.problems:
            getattr(self, source.choice(actions))(source)

    def use(self, one: Container) -> None:
        """Start, use and stop a container again and again: it either starts with all of its layers, or says why not."""
        while time.monotonic() < self.end and not self.problems:
            if one.start(check=False).returncode != 0:
                text = one.show("StatusText")
                self.seen["start refused"] += 1
                if not EXPECTED.search(text):
                    self.problems.append(f"start: {text}\n{one.journal()}")
            else:
                self.seen["start fine"] += 1
                shown = run("usercontainer", "exec", one.name, "cat", "/top", "/bottom", check=False)
                if shown.stdout != MARK * 2:
                    self.problems.append(f"exec: {shown.stdout!r} {shown.stderr}")
                one.stop()
            run("systemctl", "--user", "reset-failed", one.unit, check=False)


def test_everything_at_once(images: ImageMaker, tmp_path: Path, container: Callable[..., Container]) -> None:
    place = Place()
    check_store(place.context, repair=True, max_age=0)
    source = random.Random(SEED)
    layers = [
        build_tar(
            file(name, MARK.encode()), *(file(f"{name}-{n}", source.randbytes(2000)) for n in range(60))
        )
        for name in ("bottom", "middle", "top")
    ]
    names = [
        images.add("all", layers=tuple(layers)),
        images.add("two", layers=(layers[0], layers[2])),
        images.add("one", layers=(layers[1],)),
    ]
    archive = str(tmp_path / "archive.tar")
    copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{names[1]}"]
    run(*copy, f"docker-archive:{archive}:localhost/archived:latest")
    text = 'command = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'
    users = [
        container(f'image = "{name}"\n{text}', f"user-{number}") for number, name in enumerate(names[:2])
    ]
    actors = Actors(place, names, archive)
    threads = [threading.Thread(target=actors.use, args=(one,)) for one in users]
    for number, actions in enumerate(
        [("pull", "pull", "load"), ("pull", "tag", "remove"), ("remove", "prune"), ("check",)]
    ):
        threads.append(threading.Thread(target=actors.play, args=(number, actions)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(dict(sorted(actors.seen.items())))
    assert actors.problems == []
    for one in users:
        one.stop()
    assert [f.as_dict() for f in check_store(place.context) if f.severity == "damage"] == []
    check_store(place.context, repair=True, max_age=0)
    assert [f.as_dict() for f in check_store(place.context, max_age=0) if f.counts] == []
    for name in names:
        place.run("pull", "-q", name)
    for one in users:
        one.start()
        assert run("usercontainer", "exec", one.name, "cat", "/top", "/bottom").stdout == MARK * 2
