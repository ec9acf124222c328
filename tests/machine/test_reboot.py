"""A user's systemd that is killed with all it runs and comes back to an empty runtime directory, as after a reboot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT))
sys.path.insert(0, str(CHECKOUT / "tools"))

from machinelib.native import probe_support  # noqa: E402

from tests.machine.test_without_subids import run_machine  # noqa: E402

REFUSED = probe_support()
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=str(REFUSED))
NAME = "reboot-test"

BEFORE = """
mkdir -p ~/.config/usercontainerd/containers
cat > ~/.config/usercontainerd/containers/auto.toml <<'END'
image = "localhost:5000/web:latest"
ports = ["8081:8080"]
install.wanted_by = ["default.target"]
END
systemctl --user daemon-reload
systemctl --user start container@auto
usercontainer create --name kept --network none localhost:5000/busybox sh -c \
    'echo once more >> /log; exec sleep 1000' 2> /dev/null
usercontainer start kept
printf 'image = "localhost:5000/busybox"\\ncommand = ["sleep", "1000"]\\nnetwork = "none"\\n' \
    > ~/.config/usercontainerd/containers/chosen.toml
cd ~/.config/usercontainerd/containers
cp chosen.toml by-bus.toml
cp chosen.toml template@.toml
cp chosen.toml gone.toml
(cat chosen.toml; echo 'install.wanted_by = ["default.target"]') > not-chosen.toml
systemctl --user daemon-reload
usercontainer enable chosen template@one gone 2> /dev/null
busctl --user call org.usercontainer1 /org/usercontainer1/container/by_2dbus \
    org.usercontainer1.Container SetAutostart 'ba{sv}' true 0
usercontainer disable not-chosen
rm gone.toml
"""

REBOOT = """
systemctl kill -s KILL user@1000.service
systemctl stop user@1000.service user-runtime-dir@1000.service
ls /run/user/1000 2> /dev/null && echo still there
systemctl start user@1000.service
"""

AFTER = """
for _ in $(seq 50); do systemctl --user is-active -q container@auto && break; sleep 0.1; done
for _ in $(seq 50); do curl -sS http://127.0.0.1:8081/ && break; sleep 0.1; done
systemctl --user is-active container@kept
for _ in $(seq 100); do systemctl --user is-active -q container@template@one && break; sleep 0.1; done
for each in chosen by-bus template@one not-chosen gone; do
    echo "$each: $(systemctl --user is-active "container@$each")"
done
systemctl --user list-units --state failed --plain --no-legend
systemctl --user start container@kept
usercontainer exec kept cat /log
"""


@pytest.fixture
def machine() -> Iterator[str]:
    booted = run_machine("boot", "--name", NAME, "--registry")
    assert booted.returncode == 0, booted.stderr
    yield NAME
    run_machine("stop", "--name", NAME)


def test_what_is_wanted_comes_back_and_what_is_kept_is_there(machine: str) -> None:
    before = run_machine("run", "--name", machine, "--", "sh", "-s", stdin=BEFORE)
    assert before.returncode == 0, before.stdout + before.stderr
    reboot = run_machine("run", "--name", machine, "--user", "root", "--", "sh", "-s", stdin=REBOOT)
    assert reboot.stdout == ""
    after = run_machine("run", "--name", machine, "--", "sh", "-s", stdin=AFTER)
    assert "It works" in after.stdout, after.stdout + after.stderr
    assert "inactive" in after.stdout  # a container that nothing wants waits to be started
    for name in ("chosen", "by-bus", "template@one"):
        assert f"{name}: active\n" in after.stdout, after.stdout + after.stderr
    for name in ("not-chosen", "gone"):
        assert f"{name}: inactive\n" in after.stdout, after.stdout + after.stderr
    assert "failed" not in after.stdout
    assert after.stdout.count("once more") == 2, after.stdout + after.stderr
