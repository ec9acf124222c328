"""The guard sees what a module would leave behind, and nothing when it is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.containers import BUSYBOX, Container, run
from tests.support.world import Guard, World, compare_worlds, look_at_mounts

CONFIG = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))


def build_world(**parts: dict[str, str]) -> World:
    return {"registry": {}, "image": {}, "file": {}, "process": {}} | parts


def test_what_counts() -> None:
    before = build_world(
        registry={"busybox:latest": "a"}, image={"busybox": "1"}, file={"x": "1"}, process={"9": "p"}
    )
    assert compare_worlds(before, before) == []
    assert (
        compare_worlds(before, build_world(registry={"busybox:latest": "a", "mine:1": "b"}, file={"x": "1"}))
        == []
    )
    after = build_world(
        registry={"busybox:latest": "b"}, image={"busybox": "2"}, file={"y": "2"}, process={"10": "q"}
    )
    assert compare_worlds(before, after) == [
        "registry changed: busybox:latest: b, before: a",
        "image changed: busybox: 2, before: 1",
        "file left behind: y: 2",
        "file taken away: x: 1",
        "process left behind: 10: q",
    ]
    assert compare_worlds(before, build_world(file={"x": "1"})) == ["registry taken away: busybox:latest: a"]


def test_mounts() -> None:
    text = "36 35 98:0 / /mnt rw - ext3 /dev/root rw\n37 36 0:5 / /mnt rw shared:1 - tmpfs none rw\n"
    assert look_at_mounts(text) == {"/mnt": "ext3 /dev/root, tmpfs none"}


def test_leaks_are_seen() -> None:
    guard = Guard()
    assert guard.last["registry"]["busybox:latest"].startswith("sha256:")
    drop_in = CONFIG / "containers/registries.conf.d/leak.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    one = Container("leak")
    process = subprocess.Popen(["sleep", "1000"])
    try:
        drop_in.write_text("")
        os.environ["LEAK"] = "1"
        one.define(f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n')
        one.start()
        run("systemctl", "--user", "mask", "--runtime", "leak-masked.service")
        run("systemctl", "--user", "set-environment", "LEAK=1")
        run("systemd-run", "--user", "--unit=leak-failed", "--wait", "false", check=False)
        problems = "\n".join(guard.check(patience=0))
    finally:
        process.kill()
        process.wait()
        drop_in.unlink()
        del os.environ["LEAK"]
        one.remove()
        run("systemctl", "--user", "unmask", "--runtime", "leak-masked.service")
        run("systemctl", "--user", "unset-environment", "LEAK")
        run("systemctl", "--user", "reset-failed", "leak-failed.service")
        run("systemctl", "--user", "daemon-reload")
    for word in (
        f"file left behind: {drop_in}",
        f"file left behind: {one.path}",
        "container left behind: leak: is there",
        "unit left behind: container@leak.service: active",
        "unit left behind: leak-failed.service: failed",
        "leak-masked.service: link to /dev/null",
        "environment of the tests left behind: LEAK: 1",
        "environment of systemd left behind: LEAK: 1",
        f"process left behind: {process.pid} from",
    ):
        assert word in problems, (word, problems)
    guard.check(patience=0)  # the world with the leaks was the last that it saw
    assert guard.check() == []
