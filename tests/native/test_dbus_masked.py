"""With no daemon to be had the command line does all that it does: the daemon is never in its way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bus import MANAGER, NAME, ROOT, busctl
from tests.support.containers import BUSYBOX, SLEEPER, Container, run
from usercontainerd.cli.main import VERBS


@pytest.fixture
def masked() -> Iterator[None]:
    run("systemctl", "--user", "mask", "--now", "--runtime", "usercontainerd.service")
    try:
        assert busctl("get-property", NAME, ROOT, MANAGER, "Version").returncode != 0
        yield
        assert busctl("get-property", NAME, ROOT, MANAGER, "Version").returncode != 0
    finally:
        run("systemctl", "--user", "unmask", "--runtime", "usercontainerd.service")


def plan_uses(defined: str, directory: Path, marker: str) -> list[tuple[str, str]]:
    """A use of each verb, in an order in which each works: (the verb, what follows it)."""
    pushed, index = f"localhost:5000/masked-{marker}", f"localhost/index-{marker}"
    made, image, archive = f"made-{marker}", f"localhost/masked-{marker}:1", f"{directory}/a.tar"
    return [
        ("version", ""),
        ("doctor", ""),
        ("setup", "--check"),
        ("completion", "bash"),
        ("verify", ""),
        ("search", "localhost:5000/busybox"),
        ("login", "--username=ann --password-stdin localhost:5000"),
        ("logout", "localhost:5000"),
        ("pull", f"-q {BUSYBOX}"),
        ("images", ""),
        ("image import-storage", f"-q {BUSYBOX}"),
        ("start", defined),
        ("ps", ""),
        ("exec", f"{defined} true"),
        ("inspect", defined),
        ("container exists", defined),
        ("container inspect", defined),
        ("logs", defined),
        ("restart", f"-t 0 {defined}"),
        ("port", defined),
        ("top", defined),
        ("stats", "--no-stream"),
        ("wait", f"--condition running {defined}"),
        ("pause", defined),
        ("unpause", defined),
        ("healthcheck run", defined),
        ("kill", f"-s CONT {defined}"),
        ("export", f"-o {directory}/root.tar {defined}"),
        ("diff", defined),
        ("commit", f"-q {defined}"),
        ("cp", f"{directory}/root.tar {defined}:/root.tar"),
        ("stop", defined),
        ("enable", defined),
        ("disable", defined),
        ("create", f"--name {made} {BUSYBOX} sleep 1000"),
        ("update", f"--pids-limit 100 {made}"),
        ("rm", made),
        ("run", f"--rm --network none {BUSYBOX} true"),
        ("tag", f"{BUSYBOX} {image}"),
        ("history", image),
        ("image diff", image),
        ("image exists", image),
        ("image inspect", image),
        ("image tree", image),
        ("image trust", "show"),
        ("save", f"-o {archive} {image}"),
        ("untag", f"{image} {image}"),  # without a name it would take all
        ("load", f"-i {archive}"),
        ("rmi", image),
        ("import", f"{directory}/root.tar {image}"),
        ("push", f"{BUSYBOX} {pushed}:1"),
        ("manifest create", f"{index} {BUSYBOX}"),
        ("manifest add", f"{index} {pushed}:1"),
        ("manifest exists", index),
        ("manifest inspect", index),
        ("manifest annotate", f"--annotation a=b --index {index}"),
        ("manifest remove", f"{index} DIGEST"),
        ("manifest push", f"{index} {pushed}:index"),
        ("manifest rm", index),
        ("unshare", "true"),
        ("image mount", BUSYBOX),
        ("image unmount", "--all"),
        ("image prune", "-f"),
        ("system check", "--quick"),
        ("system df", ""),
    ]


def test_without_a_daemon_every_verb_works(
    container: Callable[..., Container], tmp_path: Path, masked: None
) -> None:
    one = container(f'{SLEEPER}[health]\ncommand = "true"\ninterval = 0\n')
    marker = os.urandom(3).hex()
    uses = plan_uses(one.name, tmp_path, marker)
    assert sorted(verb for verb, _ in uses) == sorted(VERBS), "each verb has to be tried here"
    run("podman", "pull", "-q", BUSYBOX)
    failures = []
    for verb, rest in uses:
        line = f"usercontainer {verb} {rest}"
        if verb in ("image mount", "image unmount"):
            line = f"usercontainer unshare {line}"
        if "DIGEST" in line:
            find = f"usercontainer manifest inspect localhost/index-{marker} | grep -o 'sha256:[0-9a-f]*' | head -n 1"
            line = line.replace("DIGEST", f"$({find})")
        done = subprocess.run(
            ["sh", "-c", line], input="secret\n", capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode != 0:
            failures.append(f"{line}: status {done.returncode}: {done.stderr}")
    assert not failures, "\n".join(failures)
