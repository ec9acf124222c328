"""Images made to harm: their links, names and texts must reach nothing outside of the container.

A directory of the user's with a secret stands for the host. Whether such a container starts or is refused does not
matter, as long as nothing in that directory is read, made, changed or removed. All of them are started together.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import run_all
from tests.support.fakeregistry import file
from tests.support.images import ImageMaker, Member, directory, hard_link, serve_images, symlink
from tests.support.victim import SECRET, Victim, make_victim

SNOOP = "cat {paths} > /out/found 2> /out/errors; for p in {targets}; do echo evil > $p/evil; done 2>> /out/errors"

LINKS = {
    "proc": ["proc"],
    "dev": ["dev"],
    "sys": ["sys"],
    "etc": ["etc"],
    "run": ["run"],
    "tmp": ["tmp"],
    "data": ["data"],
    "all": ["etc", "run", "tmp", "data", "dev", "sys"],
}


WAYS = [
    *((name, "absolute") for name in LINKS),
    ("data", "climbing"),
    ("dev", "climbing"),
    ("all", "climbing"),
]


LAYERS: dict[str, Callable[[Victim], list[Member]]] = {
    "climbing-name": lambda v: [file("../" * 9 + str(v.path)[1:] + "/evil", b"evil")],
    "absolute-name": lambda v: [file(f"{v.path}/evil", b"evil")],
    "through-absolute-link": lambda v: [symlink("link", str(v.path)), file("link/evil", b"evil")],
    "through-climbing-link": lambda v: [symlink("link", v.up), file("link/evil", b"evil")],
    "through-two-links": lambda v: [symlink("a", ".."), symlink("b", "a/../../.."), file(f"b{v.path}/evil", b"x")],
    "overwriting-by-link": lambda v: [symlink("link", f"{v.path}/secret"), file("link", b"evil")],
    "hard-link-to-host": lambda v: [hard_link("stolen", f"{v.path}/secret"), hard_link("x", "../../etc/passwd")],
    "hard-link-by-link": lambda v: [symlink("link", str(v.path)), hard_link("stolen", "link/secret")],
    "hard-link-to-link": lambda v: [
        symlink("link", f"{v.path}/secret"), hard_link("stolen", "link"), file("stolen", b"evil"),
    ],
    "whiteout-by-link": lambda v: [symlink("link", str(v.path)), file("link/.wh.secret")],
    "opaque-by-link": lambda v: [symlink("link", str(v.path)), file("link/.wh..wh..opq")],
    "whiteout-of-parent": lambda _v: [file(".wh...")],
    "whiteout-climbing": lambda v: [file("../" * 9 + str(v.path)[1:] + "/.wh.secret")],
    "mode-by-link": lambda v: [symlink("link", str(v.path)), directory("link", mode=0o777)],
    "replaced-directory": lambda v: [
        directory("d"), symlink("d", str(v.path)), directory("d", mode=0o700), file("d/evil", b"x"),
    ],
}  # fmt: skip


TEXTS: dict[str, dict[str, Any]] = {
    "environment-newline": {"Env": ["A=b\nLD_PRELOAD=/evil.so", "PATH=/bin"]},
    "environment-odd": {
        "Env": ["PATH=/bin", "=x", "no-sign", "", "A B=c", "LD_PRELOAD=/evil.so", "NOTIFY_SOCKET=/x"]
    },
    "environment-nul": {"Env": ["PATH=/bin", "A=b\0LD_PRELOAD=/x"]},
    "environment-many": {"Env": ["PATH=/bin", *(f"V{n}={'x' * 100}" for n in range(500))]},
    "user-newline": {"User": "0:0\nroot"},
    "user-path": {"User": "../../etc/passwd"},
    "user-huge": {"User": "4294967295"},
    "user-negative": {"User": "-1"},
    "user-long": {"User": "x" * 100_000},
    "directory-climbing": {"WorkingDir": "/../../../../../.."},
    "directory-relative": {"WorkingDir": "../../.."},
    "directory-newline": {"WorkingDir": "/tmp/a\nb"},
    "directory-nul": {"WorkingDir": "/tmp\0/x"},
    "command-nul": {"Cmd": ["sh", "-c", "true\0x"]},
    "stop-signal": {"StopSignal": "SIGTERM\nKillMode=none"},
    "labels": {"Labels": {"a\nb": "c\0d", "": "x"}},
    "volumes": {"Volumes": {"/../../x": {}, "../y": {}, "\n": {}}},
    "ports": {"ExposedPorts": {"99999/tcp": {}, "x": {}}},
}


DESCRIPTORS = range(3, 10)


@dataclass
class Outcome:
    """How a start ended, what the container wrote down, and whether the victim was touched."""

    status: str
    written: str
    untouched: bool


class Batch:
    """Collects the definitions of hostile containers."""

    def __init__(self, images: ImageMaker, directory: Path) -> None:
        self.images = images
        self.directory = directory
        self.definitions: dict[str, str] = {}
        self.victims: dict[str, Victim] = {}
        self.before: dict[str, object] = {}

    def add_victim(self, key: str) -> Victim:
        victim = self.victims[key] = make_victim()
        self.before[key] = victim.describe()
        return victim

    def add(
        self, key: str, image: str, *paths: str, command: list[str] | None = None, mounts: str = ""
    ) -> None:
        """A container that looks and writes through ``paths``; ``command``: something else, [] for the image's."""
        output = self.directory / key
        output.mkdir()
        output.chmod(0o777)
        snoop = SNOOP.format(
            paths=" ".join(f"{path} {path}/secret" for path in paths), targets=" ".join(paths)
        )
        line = "" if command == [] else f"command = {json.dumps(command or ['sh', '-c', snoop])}\n"
        self.definitions[key] = (
            f'image = "{image}"\n{line}network = "none"\nstop_timeout = 0\nmounts = ["{output}:/out"{mounts}]\n'
        )

    def run(self) -> dict[str, Outcome]:
        found = {}
        for key, status in run_all(self.definitions).items():
            written = "".join(path.read_text(errors="replace") for path in (self.directory / key).iterdir())
            victim = self.victims[key]
            found[key] = Outcome(status, written, victim.describe() == self.before[key])
            shutil.rmtree(victim.path)
        return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    with serve_images() as images:
        batch = Batch(images, tmp_path_factory.mktemp("hostile"))
        for name, kind in WAYS:
            key = f"links-{name}-{kind}"
            victim = batch.add_victim(key)
            target = str(victim.path) if kind == "absolute" else victim.up
            image = images.add(key, *(symlink(link, target) for link in LINKS[name]))
            mounts = f', "{key}:/data", {{ type = "tmpfs", target = "/data/t" }}'
            batch.add(key, image, *(f"/{link}" for link in LINKS[name]), mounts=mounts)
        for name, make in LAYERS.items():
            key = f"layer-{name}"
            victim = batch.add_victim(key)
            batch.add(key, images.add(key, *make(victim)), "/link", "/stolen", "/d", str(victim.path))
        for name, settings in TEXTS.items():
            key = f"text-{name}"
            batch.add_victim(key)
            script = "cat /proc/self/environ > /out/environ; pwd > /out/pwd"
            batch.add(key, images.add(key, settings={"Cmd": ["sh", "-c", script], **settings}), command=[])
        for number in DESCRIPTORS:
            key = f"descriptor-{number}"
            climb = f"../../../../../..{batch.add_victim(key).path}"
            image = images.add(key, settings={"WorkingDir": f"/proc/self/fd/{number}"})
            script = f"cat {climb}/secret > /out/found; echo evil > {climb}/evil"
            batch.add(key, image, command=["/bin/sh", "-c", script])
        return batch.run()


def check(outcome: Outcome) -> None:
    assert outcome.untouched
    assert SECRET not in outcome.written
    assert "\n" not in outcome.status
    assert "Traceback" not in outcome.status


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_links_in_place_of_directories(name: str, kind: str, outcomes: dict[str, Outcome]) -> None:
    check(outcomes[f"links-{name}-{kind}"])


@pytest.mark.parametrize("name", list(LAYERS))
def test_layers_that_reach_out(name: str, outcomes: dict[str, Outcome]) -> None:
    check(outcomes[f"layer-{name}"])


def test_names_that_climb_are_named(outcomes: dict[str, Outcome]) -> None:
    assert "leads out of the layer" in outcomes["layer-climbing-name"].status


@pytest.mark.parametrize("name", list(TEXTS))
def test_texts_of_a_configuration(name: str, outcomes: dict[str, Outcome]) -> None:
    check(outcomes[f"text-{name}"])


@pytest.mark.parametrize("number", DESCRIPTORS)
def test_working_directory_behind_a_descriptor(number: int, outcomes: dict[str, Outcome]) -> None:
    """CVE-2024-21626: a descriptor of the runtime that leads to the host's file system."""
    check(outcomes[f"descriptor-{number}"])


def test_many_of_them_did_run(outcomes: dict[str, Outcome]) -> None:
    """The batch would prove nothing if nothing of it ran."""
    for name in ("text-environment-many", "text-labels", "text-directory-climbing", "layer-mode-by-link"):
        assert outcomes[name].written, outcomes[name]
