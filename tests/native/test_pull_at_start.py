"""An image that is pulled while its unit starts: progress, time, silence, cancelling, and images that change."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.containers import Container, run, wait_until
from tests.support.fakeregistry import FakeRegistry, Handler, file
from tests.support.images import ImageMaker

Make = Callable[..., Container]


def define(image: str, more: str = "", *, timeout: int = 90) -> str:
    return (
        f'image = "{image}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n{more}'
        f"[service]\nTimeoutStartSec = {timeout}\n"
    )


def slow_down(registry: FakeRegistry, *, seconds: float) -> threading.Event:
    """Dribble the largest blob over so many seconds. Set: it has begun."""
    digest, data = max(registry.blobs.items(), key=lambda item: len(item[1]))
    begun = threading.Event()
    steps = max(1, int(seconds / 0.1))

    def dribble(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        begun.set()
        size = len(data) // steps + 1
        try:
            for offset in range(0, len(data), size):
                handler.wfile.write(data[offset : offset + size])
                handler.wfile.flush()
                time.sleep(seconds / steps)
        except OSError:
            pass

    for repository in {name for name, _ in registry.manifests}:
        registry.rules[f"/v2/{repository}/blobs/{digest}"] = dribble
    return begun


def store() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "usercontainerd"


def start_without_waiting(one: Container) -> subprocess.Popen[str]:
    return subprocess.Popen(["systemctl", "--user", "start", one.unit], stderr=subprocess.PIPE, text=True)


def test_slow_pull_is_no_timeout_and_shows_progress(container: Make, images: ImageMaker) -> None:
    """Two seconds are allowed for the start, the registry takes four: bytes put the timeout off."""
    one = container(define(images.add("slow", file("x", os.urandom(3_000_000))), timeout=2))
    slow_down(images.registry, seconds=4)
    starting = start_without_waiting(one)
    texts = set()
    while starting.poll() is None:
        texts.add(one.show("StatusText"))
        time.sleep(0.1)
    assert starting.returncode == 0, one.journal()
    assert one.show("ActiveState") == "active"
    progress = [text for text in texts if " of " in text]
    assert len(progress) > 3, texts
    assert all(one.name in text or "slow" in text for text in progress)


def test_stop_cancels_the_pull(container: Make, images: ImageMaker) -> None:
    one = container(define(images.add("endless", file("x", os.urandom(3_000_000)))))
    begun = slow_down(images.registry, seconds=60)
    starting = start_without_waiting(one)
    assert begun.wait(60)
    time.sleep(0.3)
    started = time.monotonic()
    run("systemctl", "--user", "stop", one.unit)
    assert time.monotonic() - started < 45  # the registry would take a minute
    assert starting.wait(60) != 0
    assert one.show("ActiveState") in ("inactive", "failed")
    wait_until(lambda: list((store() / "tmp").iterdir()) == [], "the pull cleans up")
    assert run("systemctl", "--user", "list-units", "--plain", "--no-legend", "run-*.service").stdout == ""
    # The store is whole: with the registry at its usual speed the same start works.
    images.registry.rules.clear()
    one.start()
    assert one.show("ActiveState") == "active"


def test_registry_that_hangs_up_is_named(container: Make, images: ImageMaker) -> None:
    """The connection is taken, and closed without an answer."""
    one = container(define(images.add("mute")))

    def say_nothing(handler: Handler) -> None:
        time.sleep(0.5)
        handler.close_connection = True

    images.registry.rules["/v2/mute/manifests/latest"] = say_nothing
    assert one.start(check=False).returncode != 0
    assert images.host in one.show("StatusText")
    assert "Traceback" not in one.journal()
    assert list((store() / "tmp").iterdir()) == []


def test_registry_that_is_not_there_is_named(container: Make) -> None:
    one = container(define("localhost:1/no/registry:here"))
    assert one.start(check=False).returncode != 0
    assert "localhost:1" in one.show("StatusText")
    assert "refused" in one.show("StatusText").lower()
    assert "Traceback" not in one.journal()


def test_tampered_layer_is_refused(container: Make, images: ImageMaker) -> None:
    image = images.add("tampered", file("x", b"as it was"))
    digest = next(
        d for d, data in images.registry.blobs.items() if len(data) < 2000 and b"rootfs" not in data
    )
    good = images.registry.blobs[digest]
    images.registry.blobs[digest] = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    one = container(define(image))
    assert one.start(check=False).returncode != 0
    assert digest in one.show("StatusText") or digest in one.journal()
    images.registry.blobs[digest] = good
    one.start()


def write_word(image: str, output: Path, more: str = "") -> str:
    command = json.dumps(["sh", "-c", "cat /word > /out/word"])
    return f'image = "{image}"\ncommand = {command}\nnetwork = "none"\nmounts = ["{output}:/out"]\n{more}'


def test_moved_name_is_used_after_a_pull(container: Make, images: ImageMaker, tmp_path: Path) -> None:
    """The name leads to another image in the registry: as long as nobody pulls it, the old one runs."""
    output = tmp_path / "out"
    output.mkdir()
    image = images.add("moving", file("word", b"first"))
    one = container(write_word(image, output))
    found = []
    for action in ("start", "move", "pull"):
        if action == "move":
            images.add("moving", file("word", b"second"))
        elif action == "pull":
            run("usercontainer", "pull", image)
        one.start()
        one.finish()
        found.append((output / "word").read_text())
    assert found == ["first", "first", "second"]


def test_policies_that_ask_the_registry(container: Make, images: ImageMaker, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    image = images.add("policies", file("word", b"0"))
    for number, policy in enumerate(("always", "newer", "always"), 1):
        images.add("policies", file("word", str(number).encode()))
        one = container(write_word(image, output, f'pull = "{policy}"\n'))
        one.start()
        one.finish()
        assert (output / "word").read_text() == str(number)
    never = container(write_word(images.add("never"), output, 'pull = "never"\n'))
    assert never.start(check=False).returncode != 0
    assert "never" in never.show("StatusText")


def test_known_image_needs_no_registry(container: Make, images: ImageMaker) -> None:
    one = container(define(images.add("known")))
    one.start()
    one.stop()
    seen = len(images.registry.seen)
    one.start()
    assert len(images.registry.seen) == seen
