"""``usercontainer pull`` as its users call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from tests.support.containers import run
from tests.support.fakeregistry import Handler, build_tar, file
from tests.support.images import ImageMaker

BUSYBOX = "localhost:5000/busybox"


def cli(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = run("usercontainer", *words, check=False)
    assert result.returncode == status, (words, result.stdout, result.stderr)
    return result


def out(*words: str) -> str:
    return cli(*words).stdout.strip()


def test_all_tags(images: ImageMaker) -> None:
    one = images.add("many/app", file("one"), tag="one")
    images.add("many/app", file("two"), tag="two")
    tags = json.dumps({"name": "many/app", "tags": ["one", "two"]}).encode()
    images.registry.rules["/v2/many/app/tags/list"] = lambda handler: handler.answer(200, tags)
    ids = out("pull", "-q", "--all-tags", one).split()
    assert len(set(ids)) == 2
    assert out("pull", "-q", "-a", one.rpartition(":")[0]).split() == ids
    for tag in ("one", "two"):
        out("image", "exists", f"{images.host}/many/app:{tag}")
    digest = images.registry.add_manifest("many/app", "x", {})
    assert "all tags of a digest" in cli("pull", "-a", f"{images.host}/many/app@{digest}", status=125).stderr


def test_platforms() -> None:
    image = "localhost:5000/multi"
    for words in (["--arch", "arm64"], ["--platform", "linux/arm64"], ["--os=linux", "--arch=aarch64"]):
        cli("pull", "-q", *words, image)
        assert json.loads(out("inspect", image))[0]["Architecture"] == "arm64"
    assert "no image for linux/s390x" in cli("pull", "--arch", "s390x", image, status=125).stderr
    both = cli("pull", "--platform", "linux/arm64", "--arch", "arm64", image, status=125).stderr
    assert "does not go together" in both
    # Without a word it is this machine's again, although the tag leads to the same index.
    cli("pull", "-q", image)
    assert json.loads(out("inspect", image))[0]["Architecture"] == "amd64"


def test_a_tag_beside_a_digest_means_nothing(images: ImageMaker) -> None:
    name = images.add("pinned", file("x"))
    digest = images.registry.add_manifest("pinned", "again", images.registry.manifests["pinned", "latest"][0])
    repository = name.rpartition(":")[0]
    image_id = out("pull", "-q", f"{repository}:no-such-tag@{digest}")
    assert image_id in out("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}} {{.Tag}}")
    assert cli("pull", "-q", "--policy", "never", f"{repository}@{digest}").stdout.strip() == image_id


def test_accepted_and_refused() -> None:
    assert out("pull", "-q", "--disable-content-trust", f"docker://{BUSYBOX}") == out("pull", "-q", BUSYBOX)
    refused = cli("pull", "--decryption-key", "key", BUSYBOX, status=125).stderr
    assert "encrypted images are not supported" in refused
    assert "is a number" in cli("pull", "--retry", "often", BUSYBOX, status=125).stderr
    assert "possible are auto" in cli("pull", "--progress", "tty", BUSYBOX, status=125).stderr


def test_retry(images: ImageMaker) -> None:
    name = images.add("flaky", file("x"))
    answers = 0

    def fail(handler: Handler) -> None:
        nonlocal answers
        answers += 1
        if answers == 4:
            images.registry.rules.clear()
        handler.answer(400)

    images.registry.rules["/v2/flaky/manifests/latest"] = fail
    result = cli("pull", "--retry", "5", "--retry-delay", "10ms", name)
    assert "Trying again in 0.01 s" in result.stderr


def test_events(images: ImageMaker) -> None:
    result = cli("pull", "--progress", "json", images.add("events", file("x", os.urandom(1_000_000))))
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[0]["phase"] == "resolve"
    assert events[-1]["phase"] == "done"
    assert {event["phase"] for event in events} >= {"resolve", "download", "unpack", "store", "done"}


class Stalled:
    """An image whose layer never comes to its end."""

    def __init__(self, images: ImageMaker) -> None:
        self.name = images.add("stalled", base=False, layers=(build_tar(file("x", os.urandom(1_000_000))),))
        self.gate = threading.Event()
        self.begun = threading.Event()
        manifest = json.loads(images.registry.manifests["stalled", "latest"][0])
        digest = manifest["layers"][0]["digest"]
        data = images.registry.blobs[digest]

        def stall(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:300_000])
            handler.wfile.flush()
            self.begun.set()
            self.gate.wait(60)

        images.registry.rules[f"/v2/stalled/blobs/{digest}"] = stall


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGINT, signal.SIGINT], 130),
    ],
)
def test_signals(images: ImageMaker, numbers: list[int], status: int) -> None:
    """It leaves at once, whatever hangs, and says no more than need be."""
    stalled = Stalled(images)
    process = subprocess.Popen(
        ["usercontainer", "pull", stalled.name], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        assert stalled.begun.wait(60)
        time.sleep(0.2)
        start = time.monotonic()
        for number in numbers:
            os.killpg(process.pid, number)  # as a terminal does it
            time.sleep(0.005)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - start < 45  # the registry would take a minute
    finally:
        stalled.gate.set()
    assert process.returncode == status
    assert b"Traceback" not in errors


def test_bars_go_away(images: ImageMaker) -> None:
    """On a terminal nothing of the display stays."""
    name = images.add("shown", file("x", os.urandom(1_000_000)))
    result = subprocess.run(
        ["script", "-qec", f"usercontainer pull {name}", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TERM": "xterm"},
    )
    assert result.stdout.rstrip().endswith(out("pull", "-q", name))
    assert f"{name}: done" in result.stdout
