"""kill -9 at any moment of what changes the store: nothing complete is lost, and the store is whole or is made so.

A few moments here; ``KILLS=200 SEED=1`` in the environment makes it as many as one likes (see HACKING.md).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.containers import Container, run
from tests.support.fakeregistry import build_tar, file
from tests.support.images import ImageMaker
from tests.support.killing import TARGETS, kill_at, spread
from tests.support.places import Place
from usercontainerd.engine.checking import check_store

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "1"))
MAX_AGE = 0.0  # everything that nothing needs counts


@dataclass
class Operation:
    """A verb to kill; ``prepare`` brings the store to where it has something to do."""

    name: str
    words: tuple[str, ...]
    prepare: Callable[[], object]
    duration: float = 0.0
    killed: int = 0
    repaired: list[str] = field(default_factory=list)


class Harness:
    """A store with images that must never be lost, and operations on others beside them."""

    def __init__(self, place: Place, images: ImageMaker, directory: Path) -> None:
        self.place = place
        source = random.Random(SEED)
        files = 150 if KILLS < 50 else 1500
        layers = tuple(
            build_tar(*(file(f"{word}/{number}", source.randbytes(3000)) for number in range(files)))
            for word in ("one", "two")
        )
        self.victim = images.add("killed", layers=layers)
        loaded = images.add("archived", file("other", b"x"), layers=layers[1:])
        self.archive = str(directory / "archive.tar")
        copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{loaded}"]
        run(*copy, f"docker-archive:{self.archive}:localhost/archived:latest")
        # The keepers share layers with what is pulled, loaded and removed.
        self.keepers = [images.add("kept"), images.add("kept-too", layers=layers[:1])]
        for name in self.keepers:
            place.run("pull", "-q", name)
        self.reported = {name: place.images.get(name).id for name in self.keepers}

    def operations(self) -> list[Operation]:
        place = self.place

        def forget(name: str) -> None:
            place.run("rmi", "-f", name)

        def have_victim() -> None:
            place.run("pull", "-q", self.victim)

        def have_nameless() -> None:
            have_victim()
            place.run("untag", self.victim)

        def have_leftovers() -> None:
            """The layers of an image of which nothing else is left, and what a killed pull leaves in ``tmp/``."""
            have_victim()
            images = place.images
            with images.lock():
                images.forget(images.get(self.victim))
            stage = place.root / "tmp" / "pull-1-left"
            (stage / "1-layer" / "diff").mkdir(parents=True, exist_ok=True)
            (stage / "lock").touch()

        return [
            Operation("pull", ("pull", "-q", self.victim), lambda: forget(self.victim)),
            Operation("load", ("load", "-q", "-i", self.archive), lambda: forget("localhost/archived")),
            Operation("rmi", ("rmi", self.victim), have_victim),
            Operation("prune", ("image", "prune", "-f"), have_nameless),
            Operation(
                "tag", ("tag", self.keepers[0], "localhost/tagged:1"), lambda: forget("localhost/tagged:1")
            ),
            Operation("repair", ("system", "check", "--repair", "--quick", "--max", "0"), have_leftovers),
        ]

    def measure(self, operation: Operation) -> float:
        operation.prepare()
        started = time.monotonic()
        self.place.run(*operation.words)
        return time.monotonic() - started

    def settle(self, operation: Operation) -> None:
        """The store is whole, or a repair makes it so; nothing reported complete is gone."""
        context = self.place.context
        findings = [
            finding for finding in check_store(context, quick=True, max_age=MAX_AGE) if finding.counts
        ]
        if findings:
            operation.repaired += sorted(finding.kind for finding in findings)
            assert all(finding.severity == "leftover" for finding in findings), [
                f.as_dict() for f in findings
            ]
            check_store(context, quick=True, repair=True, max_age=MAX_AGE)
            left = [f.as_dict() for f in check_store(context, quick=True, max_age=MAX_AGE) if f.counts]
            assert left == []
        images = self.place.images
        for name, image_id in self.reported.items():
            record = images.get(name)
            assert record.id == image_id
            assert images.is_whole(record)
        assert images.unreadable() == []


@pytest.fixture
def harness(images: ImageMaker, tmp_path: Path) -> Harness:
    check_store(Place().context, repair=True, max_age=MAX_AGE)
    return Harness(Place(), images, tmp_path)


def test_killed_at_any_moment(harness: Harness, container: Callable[..., Container]) -> None:
    source = random.Random(SEED)
    operations = harness.operations()
    for operation in operations:
        # The shorter of two: a moment that comes too late kills nothing.
        operation.duration = min(harness.measure(operation) for _ in range(2))
    trials = []
    for operation in operations:
        moments = spread(KILLS // len(operations), operation.duration, source)
        trials += [(operation, moment, TARGETS[n % 3]) for n, moment in enumerate(moments)]
    source.shuffle(trials)
    for operation, moment, target in trials:
        operation.prepare()
        outcome = kill_at(harness.place, operation.words, moment, target)
        operation.killed += not outcome.finished
        if outcome.status == 0 and operation.name in ("pull", "load"):
            name = harness.victim if operation.name == "pull" else "localhost/archived:latest"
            assert harness.place.images.is_whole(harness.place.images.get(name))
        harness.settle(operation)
    for operation in operations:
        print(
            f"{operation.name}: {operation.duration:.2f} s, killed {operation.killed} times, repaired: "
            f"{len(operation.repaired)} {sorted(set(operation.repaired))}"
        )
    assert sum(operation.killed for operation in operations) > KILLS // 2
    assert [f.as_dict() for f in check_store(harness.place.context) if f.counts] == []
    for name in harness.keepers:
        one = container(
            f'image = "{name}"\ncommand = ["sh", "-c", "true"]\nnetwork = "none"\npull = "never"\n'
        )
        one.start()
        one.finish()
        assert one.show("Result") == "success"
    harness.place.run("pull", "-q", harness.victim)
    harness.place.run("load", "-q", "-i", harness.archive)
    assert [f.as_dict() for f in check_store(harness.place.context) if f.counts] == []
