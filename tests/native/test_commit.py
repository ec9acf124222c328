"""What a container has changed, and images made of that: Podman finds the same files in them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.containers import BUSYBOX, SLEEPER, Container, run, wait_until
from tests.support.interchange import Tools

pytestmark = pytest.mark.usefixtures("bus_image")  # what does not run takes the image that is here
CHANGE = (
    "mkdir -p /new/sub; echo x > /new/file; echo changed >> /etc/passwd; rm /etc/group; rm -r /var; mkdir /var;"
    " echo v > /var/v; ln -s /nowhere /new/link; ln /new/file /new/hard; chown 5:60000 /new/sub; chmod 4755 /new/file;"
    " echo in > /vol/in; echo in > /deep/er/in; touch /etc/hosts; mkfifo /new/pipe"
)


@pytest.fixture
def changed(container: Callable[..., Container]) -> Container:
    one = container(f'{SLEEPER}mounts = ["/vol", "/deep/er"]\n')
    one.start()
    run("usercontainer", "exec", one.name, "sh", "-c", CHANGE)
    return one


def test_diff(changed: Container, container: Callable[..., Container]) -> None:
    lines = run("usercontainer", "diff", changed.name).stdout.splitlines()
    changes = (
        "C /etc,D /etc/group,C /etc/passwd,A /new,A /new/file,A /new/hard,A /new/link,A /new/pipe,A /new/sub"
    )
    expected = [*changes.split(","), "A /var/v"]
    assert [line for line in lines if line in expected] == expected
    others = {line for line in lines if line not in expected}
    assert all(line == "C /var" or line.startswith("D /var/") for line in others)
    found = json.loads(run("usercontainer", "container", "diff", "--format=json", changed.name).stdout)
    assert "/new/file" in found["added"]
    assert found["deleted"][0] == "/etc/group"
    # Nothing was ever written, and the image of that name.
    assert run("usercontainer", "diff", container(SLEEPER).name).stdout == ""
    assert "A /bin" in run("usercontainer", "diff", "localhost:5000/busybox").stdout
    assert "no such container" in run("usercontainer", "diff", "nothing-there", check=False).stderr


@pytest.fixture
def name() -> Iterator[str]:
    one = f"localhost/committed:{os.urandom(3).hex()}"
    yield one
    run("usercontainer", "rmi", "-f", one, check=False)


def commit(*words: str) -> str:
    return run("usercontainer", "commit", "-q", *words).stdout.strip()


def test_commit(changed: Container, tools: Tools, name: str) -> None:
    """The files are the container's, for us and for Podman; the image says what the changes say."""
    changes = ["-c", 'CMD ["true"]', "-c", "ENV A=b", "-c", "LABEL x=y", "-a", "me", "-m", "why"]
    identity = commit(*changes, changed.name, name)
    (image,) = json.loads(run("usercontainer", "image", "inspect", name).stdout)
    (base,) = json.loads(run("usercontainer", "image", "inspect", BUSYBOX).stdout)
    assert image["Id"].removeprefix("sha256:") == identity
    assert image["Config"]["Cmd"] == ["true"]
    assert image["Config"]["Env"] == [*base["Config"]["Env"], "A=b"]
    assert image["Author"] == "me"
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    saved = str(tools.directory / "saved.tar")
    run("usercontainer", "save", "-q", "-o", saved, name)
    tools.run("podman", "load", "-q", "-i", saved)
    tools.ours("load", "-q", "-i", saved)
    tree = tools.our_tree(name)
    assert tree == tools.podman_tree(name)
    history = tools.run("podman", "history", "--format", "{{.Comment}}", name).splitlines()[0]
    assert history == "why"
    assert {"new/link", "new/pipe", "new/hard", "var/v"} <= set(tree)
    assert not {"etc/group", "vol", "deep/er"} & set(tree)
    # All in one layer, in Docker's words, of the same files; and a container of it runs.
    squashed = f"{name}-squashed"
    try:
        commit("-s", "-f", "docker", "--pause=false", changed.name, squashed)
        (image,) = json.loads(run("usercontainer", "image", "inspect", squashed).stdout)
        assert len(image["RootFS"]["Layers"]) == 1
        run("usercontainer", "save", "-q", "-o", saved, squashed)
        tools.ours("load", "-q", "-i", saved)
        # But for the places of mounts, which nobody tells from the image's own.
        made = {path: entry for path, entry in tools.our_tree(squashed).items() if path in tree}
        assert made == tree
    finally:
        run("usercontainer", "rmi", "-f", squashed)


def test_commit_of_a_stopped_container(container: Callable[..., Container], name: str) -> None:
    one = container(f'{SLEEPER}writable_layer = "keep"\n')
    untouched = commit(one.name)
    one.start()
    run("usercontainer", "exec", one.name, "sh", "-c", "echo kept > /kept")
    one.stop()
    assert commit(one.name, name) != untouched
    second = container(f'image = "{name}"\ncommand = ["cat", "/kept"]\nnetwork = "none"\n')
    second.start()
    assert "kept" in second.finish()
    run("usercontainer", "rmi", "-f", untouched)
    assert "--change" in run("usercontainer", "commit", "-c", "RUN x", one.name, check=False).stderr


def test_a_killed_commit_leaves_nobody_standing(container: Callable[..., Container]) -> None:
    one = container(SLEEPER)
    one.start()
    run("usercontainer", "exec", one.name, "sh", "-c", "head -c 100000000 /dev/urandom > /big")
    events = one.cgroup / "container" / "cgroup.events"
    with subprocess.Popen(["usercontainer", "commit", "-q", one.name], stdout=subprocess.DEVNULL) as process:
        while "frozen 1" not in events.read_text():
            assert process.poll() is None, "it has not stood still"
        process.kill()
    wait_until(lambda: "frozen 0" in events.read_text(), "the container goes on")
    run("usercontainer", "exec", one.name, "true")
