"""Calls of every method with arguments of right and wrong types, from a seed; and what the daemon has to keep.

Nothing that others have is changed by it: ``Playground`` is an image, a container and a registry of its own, no
other object is ever called, and every name that it knows is one of these or nobody's.

For ``tests/native/test_dbus_fuzz.py``, and by hand for as long as one likes, in a machine::

    python3 -m tests.support.busfuzz SECONDS [SEED]
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dbus_next import Message, MessageType, SignatureTree, Variant

from tests.support.containers import Container, run
from tests.support.fakeregistry import file
from tests.support.images import serve_images
from usercontainerd.daemon.connection import Connection, connect_bus
from usercontainerd.daemon.description import find_descriptions, read_interface

NAME = "org.usercontainer1"
ROOT = "/org/usercontainer1"
INTERFACES = ("Manager", "Container", "Image", "Job")
# They are meant to be reached by name; what they do is tested elsewhere, and would end what is being fuzzed.
LEFT_OUT = ("Unsubscribe",)
# It takes away what nobody uses, whosever it is: it is only ever called in ways that it has to refuse.
REFUSED_ONLY = ("PruneImages",)
AT_ONCE = 24
MAX_FDS = 16  # the bus cuts off who sends more in one message
PREFIX = "fuzz-"  # of every container's and image's name that comes of it
APP = f"{PREFIX}app"
BASIC = "ybnqiuxtdsogh"


def list_texts(reference: str) -> tuple[str, ...]:
    """What strings are chosen from: ``reference`` is an image of the playground."""
    return (
        "",
        f"{PREFIX}x",
        APP,
        reference,
        f"localhost:1/{PREFIX}none",
        "../../etc/passwd",
        "a" * 5000,
        "%n%%$HOME`id`",
        "\x1b[31m\n\t",
        "ü\u202e\U0001f600",
        "--help",
        "-1",
        f'image = "localhost:1/{PREFIX}none"\n',
        f"container@{APP}.service",
    )


@dataclass
class Playground:
    """What calls may change. ``jobs`` are the objects of those that our own calls have begun."""

    reference: str
    app: Container
    jobs: list[str] = field(default_factory=list)
    images: frozenset[str] = field(default_factory=lambda: frozenset(list_images()))

    def clean(self) -> None:
        """Take away what calls have made; the container and its image are there as in the beginning."""
        for definition in self.app.path.parent.glob(f"{PREFIX}*.toml"):
            if definition != self.app.path:
                definition.unlink()
        names = run("usercontainer", "ps", "-a", "--format", "{{.Names}}").stdout.split()
        if made := [name for name in names if name.startswith(PREFIX) and name != self.app.name]:
            run("usercontainer", "rm", "-f", *made)
        self._remove_images()
        run("usercontainer", "pull", "-q", self.reference)

    def _remove_images(self) -> None:
        made = {
            identity
            for identity, names in list_images().items()
            if identity not in self.images and all(PREFIX in name for name in names)
        }
        if made:
            run("usercontainer", "rmi", "-f", *made)


def list_images() -> dict[str, set[str]]:
    """The store's images: ID and names."""
    form = "{{.ID}} {{.Repository}}:{{.Tag}}"
    found: dict[str, set[str]] = {}
    for line in run(
        "usercontainer", "images", "--no-trunc", "--noheading", "--format", form
    ).stdout.splitlines():
        identity, name = line.split(" ", 1)
        found.setdefault(identity, set()).update({name} - {"<none>:<none>"})
    return found


@contextmanager
def open_playground() -> Iterator[Playground]:
    """An image that no other has an equal of, a container of it that has not been started, and a registry."""
    with serve_images() as maker:
        reference = maker.add(f"{PREFIX}image", file("own", os.urandom(16)))
        playground = Playground(reference, Container(APP))
        run("usercontainer", "pull", "-q", reference)
        try:
            playground.app.define(
                f'image = "{reference}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'
            )
            yield playground
        finally:
            playground.clean()
            playground.app.remove()
            playground._remove_images()


class Fuzzer:
    """Makes values; the same seed makes the same ones."""

    def __init__(self, seed: int, texts: tuple[str, ...]) -> None:
        self.random = random.Random(seed)
        self.texts = texts

    def make_signature(self, depth: int = 0) -> str:
        """Any single complete type."""
        choice = self.random.random()
        if depth > 2 or choice < 0.6:
            return self.random.choice(BASIC)
        if choice < 0.75:
            return "a" + self.make_signature(depth + 1)
        if choice < 0.85:
            return "a{s" + self.make_signature(depth + 1) + "}"
        if choice < 0.95:
            return (
                "(" + "".join(self.make_signature(depth + 1) for _ in range(self.random.randint(1, 3))) + ")"
            )
        return "v"

    def make(self, kind: Any, fds: list[int]) -> Any:
        """A value of a type; descriptors that it needs are added to ``fds``."""
        token, rnd = kind.token, self.random
        if token in "ynqiuxt":
            bits = {"y": 8, "n": 15, "q": 16, "i": 31, "u": 32, "x": 63, "t": 64}[token]
            low = -(1 << bits) if token in "nix" else 0
            return rnd.choice([low, 0, 1, (1 << bits) - 1, rnd.randint(low, (1 << bits) - 1)])
        if token == "b":
            return rnd.random() < 0.5
        if token == "d":
            return rnd.choice([0.0, -1.5, 1e308, float("inf"), float("nan"), rnd.random() * 100])
        if token == "s":
            return rnd.choice(self.texts)
        if token == "o":
            return rnd.choice(["/", ROOT, f"{ROOT}/image/0", "/a/b"])
        if token == "g":
            return rnd.choice(["", "s", "a{sv}"])
        if token == "h":
            return self._make_descriptor(fds)
        if token == "v":
            signature = self.make_signature(1)
            return Variant(signature, self.make(SignatureTree(signature).types[0], fds))
        if token == "(":
            return [self.make(child, fds) for child in kind.children]
        (child,) = kind.children
        if child.token == "{":
            count = rnd.choice([0, 0, 1, 2, 5])
            return {
                self.make(child.children[0], fds): self.make(child.children[1], fds) for _ in range(count)
            }
        if child.token == "y":
            return os.urandom(rnd.choice([0, 1, 100]))
        return [self.make(child, fds) for _ in range(rnd.choice([0, 1, 2, 10]))]

    def _make_descriptor(self, fds: list[int]) -> int:
        if self.random.random() < 0.2 or len(fds) >= MAX_FDS:
            return self.random.choice([0, 7, 2**32 - 1])  # one that is not there
        kind = self.random.randrange(3)
        if kind == 0:
            fds.append(os.open(os.devnull, os.O_RDWR))
        elif kind == 1:
            reader, writer = os.pipe()
            os.close(reader if self.random.random() < 0.5 else writer)
            fds.append(max(reader, writer) if _is_open(max(reader, writer)) else min(reader, writer))
        else:
            fds.append(os.memfd_create("fuzz"))
        return len(fds) - 1


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Report:
    """What came of it."""

    def __init__(self) -> None:
        self.calls = 0
        self.errors: dict[str, int] = {}
        self.silent: list[str] = []
        self.tracebacks: list[str] = []
        self.descriptors: list[int] = []
        self.memory: list[int] = []  # KiB


def daemon_pid() -> int:
    """The daemon's process."""
    command = ["systemctl", "--user", "show", "-P", "MainPID", "usercontainerd"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(pid: int) -> tuple[int, int]:
    """Open descriptors and resident memory in KiB."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return len(os.listdir(f"/proc/{pid}/fd")), pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def find_targets(bus: Connection, playground: Playground) -> list[tuple[str, str]]:
    """(path, interface) of the manager and of one object of each kind that is ours and there."""
    found = [(ROOT, f"{NAME}.Manager")]
    if playground.jobs:
        found.append((playground.jobs[-1], f"{NAME}.Job"))
    for kind, name in (("Container", playground.app.name), ("Image", playground.reference)):
        question = Message(
            destination=NAME, path=ROOT, interface=f"{NAME}.Manager", member=f"Get{kind}",
            signature="sa{sv}", body=[name, {}],
        )  # fmt: skip
        reply = await asyncio.wait_for(bus.call(question), 60)
        if reply.message_type is not MessageType.ERROR:
            found.append((reply.body[0], f"{NAME}.{kind}"))
    return found


async def fuzz(seconds: float, seed: int, playground: Playground, *, fewest_calls: int = 0) -> Report:
    """Call for ``seconds``, and until ``fewest_calls`` are answered."""
    fuzzer, report = Fuzzer(seed, list_texts(playground.reference)), Report()
    # Our own connection: dbus-next's takes a full socket for its end.
    bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
    directory = find_descriptions()
    methods = {
        f"{NAME}.{each}": list(read_interface(directory, f"{NAME}.{each}").methods.values())
        for each in INTERFACES
    }
    end = time.monotonic() + seconds
    gate = asyncio.Semaphore(AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()
    targets = await find_targets(bus, playground)
    watched = daemon_pid()

    async def one() -> None:
        async with gate:
            path, interface = fuzzer.random.choice(targets)
            method = fuzzer.random.choice(methods[interface])
            if method.name in LEFT_OUT:
                return
            signature = method.inputs
            if fuzzer.random.random() < 0.25:
                signature = "".join(fuzzer.make_signature() for _ in range(fuzzer.random.randint(0, 3)))
            fds: list[int] = []
            kinds = SignatureTree(signature).types
            body = [fuzzer.make(kind, fds) for kind in kinds]
            if body and kinds[-1].signature == "a{sv}" and fuzzer.random.random() < 0.7:
                body[-1] = {}
            if method.name in REFUSED_ONLY and body in ([], [{}]):
                body, signature = [{APP: Variant("b", True)}], "a{sv}"
            message = Message(
                destination=NAME, path=path, interface=interface, member=method.name,
                signature=signature, body=body, unix_fds=fds,
            )  # fmt: skip
            try:
                reply = await asyncio.wait_for(bus.call(message), 60)
            except TimeoutError:
                report.silent.append(f"{method.name} {body!r:.200}")
                return
            finally:
                for fd in fds:
                    os.close(fd)
            report.calls += 1
            if reply is None:
                return
            for fd in reply.unix_fds:
                os.close(fd)
            playground.jobs += [each for each in reply.body if str(each).startswith(f"{ROOT}/job/")][:1]
            if reply.message_type is MessageType.ERROR:
                report.errors[reply.error_name] = report.errors.get(reply.error_name, 0) + 1
                if any("Traceback" in str(part) or 'File "' in str(part) for part in reply.body):
                    report.tracebacks.append(str(reply.body))

    next_look = 0.0
    while time.monotonic() < end or report.calls < fewest_calls:
        async with gate:
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(0)
        if time.monotonic() > next_look:
            next_look = time.monotonic() + max(0.5, seconds / 60)
            targets = await find_targets(bus, playground)
            descriptors, memory = measure(watched)
            report.descriptors.append(descriptors)
            report.memory.append(memory)
    await asyncio.gather(*tasks)
    bus.disconnect()
    assert daemon_pid() == watched, "the daemon was restarted"
    return report


def main() -> None:
    """By hand."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with open_playground() as playground:
        report = asyncio.run(fuzz(seconds, seed, playground))
    print(
        f"{report.calls} calls, {len(report.silent)} without an answer, {len(report.tracebacks)} tracebacks"
    )
    for name, count in sorted(report.errors.items()):
        print(f"  {count:6} {name}")
    print("descriptors", report.descriptors)
    print("memory", report.memory)
    print("silent", report.silent[:10])


if __name__ == "__main__":
    main()
