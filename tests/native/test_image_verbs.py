"""The verbs of local images, beside podman's where it says what is right."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, Container, run
from tests.support.fakeregistry import build_tar, file
from tests.support.images import ImageMaker

WEB = "localhost:5000/web:latest"


def cli(*words: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command; its exit status has to be ``status``."""
    result = subprocess.run(
        ["usercontainer", *words], capture_output=True, text=True, check=False, timeout=120, input=stdin
    )
    if result.returncode != status:
        pytest.fail(f"usercontainer {' '.join(words)}: {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def out(*words: str) -> str:
    return cli(*words).stdout.strip()


def lines(*words: str) -> list[str]:
    return cli(*words).stdout.splitlines()


@pytest.fixture(scope="module")
def nothing_here() -> None:
    """What other tests have left would be listed, too, here and by podman."""
    cli("rmi", "-a", "-f")
    run("podman", "rmi", "-a", "-f")


@pytest.fixture(autouse=True)
def here(nothing_here: None) -> Iterator[None]:
    """Each test has busybox and web, of which busybox is the parent, in a store that is empty afterwards."""
    cli("pull", "-q", BUSYBOX, WEB)
    yield
    cli("rmi", "-a", "-f")
    data = Path("~/.local/share/usercontainerd").expanduser()
    for part in ("images", "names", "layers", "blobs/sha256", "trash"):
        assert os.listdir(data / part) == [], part


def image_id(name: str) -> str:
    return out("image", "inspect", "--format", "{{.Id}}", name).removeprefix("sha256:")


def test_tag_and_untag() -> None:
    cli("tag", BUSYBOX, "one", "two:2", "example.com/team/three")
    assert set(lines("images", "--format", "{{.Repository}}:{{.Tag}}", "--no-trunc")) == {
        "localhost/one:latest", "localhost/two:2", "example.com/team/three:latest", BUSYBOX, WEB,
    }  # fmt: skip
    cli("image", "tag", image_id("one")[:10], "four")
    assert image_id("four") == image_id(BUSYBOX)
    cli("untag", "four", "one", "two:2")
    cli("image", "exists", "one", status=1)
    assert "has no name 'one'" in cli("untag", "four", "one", status=125).stderr
    cli("tag", WEB, "four")
    assert image_id("four") == image_id(WEB)
    assert "no image 'nosuch' here" in cli("tag", "nosuch", "x", status=125).stderr
    assert "invalid image reference" in cli("tag", BUSYBOX, "good", "Bad name", status=125).stderr
    cli("image", "exists", "good", status=1)
    cli("untag", BUSYBOX)
    cli("image", "exists", BUSYBOX, status=1)


def test_exists() -> None:
    for text, status in ((BUSYBOX, 0), (image_id(BUSYBOX)[:8], 0), ("nosuch", 1), ("Not A Name", 1)):
        assert cli("image", "exists", text, status=status).stdout == ""


def test_rmi_prints_and_fails_as_podman() -> None:
    cli("tag", BUSYBOX, "a", "b")
    identity = image_id(BUSYBOX)
    assert out("rmi", "a") == "Untagged: localhost/a:latest"
    assert "several names" in cli("rmi", identity, status=125).stderr
    result = cli("rmi", WEB, "nosuch", status=1)
    assert result.stdout.splitlines()[0] == f"Untagged: {WEB}"
    assert re.fullmatch("Deleted: [0-9a-f]{64}", result.stdout.splitlines()[1])
    assert "nosuch" in result.stderr
    assert cli("rmi", "-i", "nosuch").stdout == cli("rmi", "-f", "nosuch").stdout == ""
    assert set(lines("image", "rm", "-f", identity[:12])) == {
        "Untagged: localhost/b:latest", f"Untagged: {BUSYBOX}", f"Deleted: {identity}",
    }  # fmt: skip
    assert cli("rmi", "-a").stdout == ""
    assert "missing" in cli("rmi", status=125).stderr
    assert "--all" in cli("rmi", "-a", "x", status=125).stderr


def test_an_image_in_use_stays() -> None:
    name = f"uses-{os.urandom(3).hex()}"
    cli("create", "-q", "--name", name, "--network", "none", BUSYBOX, "sleep", "1000")
    cli("tag", BUSYBOX, "other")
    assert out("rmi", "other") == "Untagged: localhost/other:latest"
    assert f"used by container {name}" in cli("rmi", BUSYBOX, status=2).stderr
    assert name in cli("rmi", BUSYBOX, "nosuch", status=2).stderr
    assert name in cli("rmi", "-a", status=2).stderr
    cli("image", "exists", BUSYBOX)
    cli("image", "exists", WEB, status=1)
    cli("start", name)
    assert out("image", "prune", "-a", "-f") == ""
    assert lines("rmi", "--force", BUSYBOX)[0] == f"Untagged: {BUSYBOX}"
    assert name not in lines("ps", "-a", "--format", "{{.Names}}")


def test_an_image_of_a_definition_stays() -> None:
    one = Container(f"defined-{os.urandom(3).hex()}")
    one.define(f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\n')
    try:
        assert one.name in cli("rmi", BUSYBOX, status=2).stderr
        one.start()
        cli("rmi", "-f", BUSYBOX)
        assert one.has_ended and one.path.exists()
        one.start()  # has it pulled
        cli("image", "exists", BUSYBOX)
    finally:
        one.remove()


def test_prune(images: ImageMaker) -> None:
    name = images.add("app", file("etc/version", b"1"))
    first = out("pull", "-q", name)
    images.add("app", file("etc/version", b"2"))
    second = out("pull", "-q", name)
    assert first != second
    assert out("images", "--noheading", "--format", "{{.Repository}}", first[:12]) == "<none>"
    assert cli("image", "prune", "--filter", "until=0", "-f").stdout == ""
    assert "nobody answers" in cli("image", "prune", status=125).stderr
    assert out("image", "prune", "-f", "--filter", "label=nosuch") == ""
    assert "WARNING! This command removes all dangling images." in cli("image", "prune", stdin="n\n").stdout
    cli("image", "exists", first)
    assert first in cli("image", "prune", stdin="y\n").stdout
    cli("image", "exists", first, status=1)
    cli("image", "exists", second)
    assert "there is no filter" in cli("image", "prune", "-f", "--filter", "size=1", status=125).stderr
    assert second in lines("image", "prune", "-a", "-f", "--build-cache")


def test_prune_asks_on_a_terminal() -> None:
    master, slave = pty.openpty()
    with subprocess.Popen(["usercontainer", "image", "prune", "-a"], stdin=slave, stdout=slave) as process:
        os.write(master, b"N\n")
        assert process.wait(60) == 0
    shown = ""
    while "[y/N]" not in shown:
        shown += os.read(master, 1000).decode()
    os.close(master)
    os.close(slave)
    assert "all images without at least one container" in shown and "[y/N]" in shown
    cli("image", "exists", BUSYBOX)


def test_inspect_is_podmans(images: ImageMaker) -> None:
    healthcheck = {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 2}
    made = images.add("full", settings={
        "Healthcheck": healthcheck, "Entrypoint": ["/bin/true"], "Labels": {"a": "b"}, "Volumes": {"/data": {}},
        "StopSignal": "SIGINT", "ExposedPorts": {"80/tcp": {}}, "User": "www",
    }, history=[
        {"created_by": "it", "comment": "well", "created": "2026-01-01T00:00:00Z", "author": "me"},
    ])  # fmt: skip
    run("podman", "pull", "-q", "--tls-verify=false", WEB, made, BUSYBOX)
    cli("pull", "-q", made)
    for name in (WEB, made):
        (ours,) = json.loads(out("image", "inspect", name))
        (theirs,) = json.loads(run("podman", "image", "inspect", name).stdout)
        for key in set(theirs) - {"Size", "VirtualSize", "GraphDriver", "Config", "Created", "Healthcheck"}:
            assert ours[key] == theirs[key], key
        for key, value in theirs["Config"].items():
            assert key == "Healthcheck" or ours["Config"][key] == value, key
        assert os.path.isdir(ours["GraphDriver"]["Data"]["UpperDir"])
    run("podman", "rmi", "-f", made)
    assert ours["HealthCheck"] == healthcheck
    assert out("image", "inspect", "-f", '{{.User}} {{index .Config.Labels "a"}}', made) == "www b"
    missing = cli("image", "inspect", "nosuch", status=125)
    assert missing.stdout == "[]\n" and "nosuch" in missing.stderr


def test_history_is_podmans() -> None:
    run("podman", "pull", "-q", "--tls-verify=false", WEB, BUSYBOX)
    cli("tag", BUSYBOX, "base")
    ours = json.loads(out("history", "--format", "json", WEB))
    theirs = json.loads(run("podman", "history", "--format", "json", WEB).stdout)
    for key in ("id", "created", "CreatedBy"):
        assert [step[key] for step in ours] == [step[key] for step in theirs]
    assert sorted(ours[1]["tags"]) == ["localhost/base:latest", BUSYBOX]
    assert re.match("ID +CREATED +CREATED BY +SIZE +COMMENT", out("history", WEB))
    assert lines("history", "-q", WEB) == run("podman", "history", "-q", WEB).stdout.split()
    template = "{{.ID}} {{.CreatedBy}} {{.CreatedAt}} {{.CreatedSince}}"
    shown = lines("image", "history", "--no-trunc", "--format", template, WEB)
    assert shown == run("podman", "history", "--no-trunc", "--format", template, WEB).stdout.splitlines()
    assert re.search(r" [0-9]+ *$", lines("history", "--human=false", WEB)[1])
    cli("rmi", "base", BUSYBOX)
    assert lines("history", "-q", WEB)[1] == "<missing>"
    assert "nosuch" in cli("history", "nosuch", status=125).stderr


def test_parents_without_a_name_go_along(images: ImageMaker) -> None:
    def add(name: str, *steps: str) -> str:
        layers = tuple(build_tar(file(f"step{n}", step.encode())) for n, step in enumerate(steps))
        history = [{"created_by": step} for step in ("base", *steps)]
        return images.add(name, layers=layers, history=history)

    base, middle, top = add("base"), add("middle", "1"), add("top", "1", "2")
    other = add("other", "1", "3")
    cli("pull", "-q", base, middle, top, other)
    identity = image_id(middle)
    cli("untag", middle)
    assert identity[:12] not in lines("images", "-q")
    assert identity[:12] in lines("images", "-a", "-q")
    assert out("image", "prune", "-f") == ""
    assert [line for line in lines("rmi", top) if identity in line] == []
    assert f"Deleted: {identity}" in lines("rmi", other)
    cli("image", "exists", base)
