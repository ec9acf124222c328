"""Isolation as a definition changes it: the same choices of Podman's give the same processes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, defined, run
from tests.support.fakeregistry import file
from tests.support.images import ImageMaker, directory
from tests.support.probes import list_mounts, probe_ours, probe_podman

COMPARED = (
    "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "Umask",
)  # fmt: skip


def parse_status(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def read_status(toml: str, output: Path, image: str = BUSYBOX) -> dict[str, str]:
    """Start a container that writes down its own /proc/self/status."""
    output.mkdir()
    output.chmod(0o777)
    text = (
        f'image = "{image}"\ncommand = ["sh", "-c", "cat /proc/self/status > /out/status"]\n'
        f'mounts = ["{output}:/out"]\nnetwork = "none"\n{toml}\n'
    )
    with defined("status", text) as container:
        container.start()
        log = container.finish()
    assert (output / "status").exists(), log
    return parse_status((output / "status").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("toml", "options"),
    [
        ('user = "1000"', ["--user", "1000"]),
        ('user = "www"\ngroup = "1"', ["--user", "www:1"]),
        (
            'user = "1000"\nsecurity.add_capabilities = ["NET_ADMIN"]',
            ["--user", "1000", "--cap-add", "NET_ADMIN"],
        ),
        ('security.drop_capabilities = ["ALL"]', ["--cap-drop", "ALL"]),
        (
            'security.drop_capabilities = ["ALL"]\nsecurity.add_capabilities = ["CHOWN", "NET_RAW"]',
            ["--cap-drop", "ALL", "--cap-add", "CHOWN,NET_RAW"],
        ),
        ('security.add_capabilities = ["ALL"]', ["--cap-add", "ALL"]),
        ('security.drop_capabilities = ["CHOWN", "SETFCAP"]', ["--cap-drop", "CHOWN,SETFCAP"]),
        ("security.no_new_privileges = true", ["--security-opt", "no-new-privileges"]),
        ('security.seccomp = "unconfined"', ["--security-opt", "seccomp=unconfined"]),
    ],
    ids=(
        "user",
        "group",
        "user-adds",
        "drop-all",
        "drop-all-add",
        "add-all",
        "drop",
        "no-new-privileges",
        "open",
    ),
)
def test_same_choice_as_podman(toml: str, options: list[str], tmp_path: Path) -> None:
    ours = read_status(toml, tmp_path / "out")
    podman = parse_status(
        run(
            "podman", "run", "--rm", "--network", "none", *options, BUSYBOX, "cat", "/proc/self/status"
        ).stdout
    )
    assert {key: ours[key] for key in COMPARED} == {key: podman[key] for key in COMPARED}


@pytest.mark.parametrize("network", ["none", "host"])
def test_mounts_with_other_networks(network: str, tmp_path: Path) -> None:
    """Without a network namespace of its own, /sys is the host's: as strict as Podman's, mount by mount."""
    ours = probe_ours("facts", output=tmp_path / "out", toml=f'network = "{network}"')
    podman = probe_podman("facts", output=tmp_path / "out", options=("--network", network))
    found, theirs = ({mount["target"]: mount for mount in facts["mounts"]} for facts in (ours, podman))
    assert set(theirs) - set(found) == set()
    for target in set(found) - set(theirs) - {"/etc/resolv.conf"}:
        assert ours["hidden"][target] in ("0", "0 entries"), target
    for target, mount in theirs.items():
        strict = {"ro", "nosuid", "nodev", "noexec"} & set(mount["options"])
        masked = ours["hidden"].get(target) == "0 entries"
        assert masked or strict <= set(found[target]["options"]), target
    assert ours["writable"]["/sys"] == "EROFS"
    assert ours["writable"]["/sys/fs/cgroup"] == "EROFS"
    own = os.readlink("/proc/self/ns/net")
    assert (ours["namespaces"]["net"] == own) == (network == "host")
    assert ours["interfaces"] == podman["interfaces"]


def test_read_only_root(tmp_path: Path) -> None:
    script = (
        "for d in / /etc /bin /root /home; do touch $d/x 2>/dev/null && echo wrote $d; done > /out/log; "
        "for d in /tmp /run /var/tmp /dev/shm; do touch $d/x || echo refused $d; done >> /out/log 2>&1"
    )
    output = tmp_path / "out"
    output.mkdir()
    text = (
        f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", {json.dumps(script)}]\nmounts = ["{output}:/out"]\n'
        'network = "none"\nsecurity.read_only = true\n'
    )
    with defined("readonly", text) as container:
        container.start()
        log = container.finish()
    assert (output / "log").read_text(encoding="utf-8") == "", log


def test_init_system_owns_its_cgroup(tmp_path: Path) -> None:
    """systemd as the command: its cgroup is writable, that above is not there, and nobody else is in it."""
    output = tmp_path / "out"
    output.mkdir()
    script = tmp_path / "systemd"
    script.write_text(
        "#!/bin/busybox sh\n"
        "cd /sys/fs/cgroup\n"
        "mkdir init.scope && echo 1 > init.scope/cgroup.procs && echo moved > /out/moved\n"
        "cat cgroup.procs > /out/left\n"
        "cat /proc/self/cgroup > /out/own\n"
        "ls -d /sys/fs/cgroup/../container > /out/above 2>&1\n"
        "cat /proc/self/mountinfo > /out/mounts\n"
    )
    script.chmod(0o755)
    text = (
        f'image = "{BUSYBOX}"\ncommand = ["/sbin/systemd"]\n'
        f'mounts = ["{output}:/out", "{script}:/bin/systemd:ro"]\n'
    )
    with defined("systemd", text) as container:
        container.start()
        log = container.finish()
    assert (output / "moved").read_text() == "moved\n", log
    assert (output / "left").read_text() == "", "something else is in the container's cgroup"
    assert "0::/init.scope" in (output / "own").read_text().splitlines()
    mounts = (output / "mounts").read_text()
    assert {line.split()[4] for line in mounts.splitlines() if " tmpfs " in line} >= {
        "/run",
        "/tmp",
        "/run/lock",
    }


def test_set_user_id_programs_gain_only_within(images: ImageMaker, tmp_path: Path) -> None:
    """A set-user-ID file of the image makes root of the container, and with no_new_privileges not even that."""
    # Not busybox's: it gives such privileges up by itself.
    program = file("bin/suid-cat", Path("/usr/bin/cat").read_bytes(), mode=0o4755)
    image = images.add("suid", directory("bin"), program)
    common = f'image = "{image}"\nnetwork = "none"\nuser = "1000"\n'
    output = tmp_path / "out"
    found = []
    for number, extra in enumerate(("", "security.no_new_privileges = true\n")):
        script = f"/bin/suid-cat /proc/self/status > /out/{number}"
        mounts = json.dumps(list_mounts(output))
        text = f'{common}command = ["sh", "-c", "{script}"]\nmounts = {mounts}\n{extra}'
        with defined("suid", text) as container:
            container.start()
            container.finish()
        found.append(parse_status((output / str(number)).read_text(encoding="utf-8"))["Uid"].split())
    assert found[1] == ["1000"] * 4
    assert found[0][1:] == ["0", "0", "0"]


def test_nobody_else_reaches_the_store() -> None:
    """The store has set-user-ID files that belong to the user: other users of the host must not come near."""
    data = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")) / "usercontainerd"
    runtime = Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd"
    with defined("store", f'image = "{BUSYBOX}"\ncommand = ["true"]\nnetwork = "none"\n') as container:
        container.start()
        for path in (data, runtime):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        bundle = runtime / "containers" / container.name
        assert stat.S_IMODE((bundle / "config.json").stat().st_mode) == 0o600
