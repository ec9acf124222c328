"""A host that has no subordinate IDs for the user, or no newuidmap: what still works, and what is said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TOOL = str(CHECKOUT / "tools/machine")
sys.path.insert(0, str(CHECKOUT / "tools"))

from machinelib.native import probe_support  # noqa: E402

REFUSED = probe_support()
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=str(REFUSED))

ALONE = """
mkdir -p ~/.config/usercontainerd/containers
cd ~/.config/usercontainerd/containers
cat > alone.toml <<'END'
image = "localhost:5000/busybox:latest"
command = ["sh", "-c", "cat /proc/self/uid_map; id -u; touch /file; ls -ln /file; exec sleep 1000"]
stop_timeout = 0
END
cat > web.toml <<'END'
image = "localhost:5000/web:latest"
END
systemctl --user daemon-reload
systemctl --user start container@alone && echo started
cat /proc/$(systemctl --user show --value -p MainPID container@alone)/uid_map
usercontainer exec alone id -u
systemctl --user stop container@alone
systemctl --user start container@web && echo unexpected
systemctl --user show -p StatusText container@web
"""


def run_machine(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOL, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def machine() -> Iterator[str]:
    name = f"subids-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    done = run_machine("boot", "--registry", "--name", name)
    assert done.returncode == 0, done.stderr
    yield name
    run_machine("stop", "--name", name)


def run_as(user: str, machine: str, script: str) -> list[str]:
    done = run_machine("run", "--name", machine, "--user", user, "--", "sh", "-s", stdin=script)
    return [" ".join(line.split()) for line in (done.stdout + done.stderr).splitlines()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sed -i /^alice:/d /etc/subuid /etc/subgid", "usermod --add-subuids"),
        ("rm /usr/bin/newuidmap", "install the package"),
    ],
    ids=["no-subids", "no-newuidmap"],
)
def test_one_id_is_enough_for_an_image_of_root_only(machine: str, change: str, said: str) -> None:
    run_as("root", machine, change)
    lines = run_as("alice", machine, ALONE)
    assert "started" in lines, lines
    assert lines[lines.index("started") + 1 :][:2] == ["0 1000 1", "0"]
    assert "unexpected" not in lines
    status = next(line for line in lines if line.startswith("StatusText="))
    assert said in status
    assert "Traceback" not in "\n".join(lines)
