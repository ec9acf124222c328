"""The default isolation, measured against Podman's in the same machine: no weaker, item by item.

docs/isolation.md has the table; each difference that is allowed here has its reason there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import BUSYBOX, defined, wait_until
from tests.support.probes import probe_ours, probe_podman

Facts = dict[str, Any]

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
STRICT = ("ro", "nosuid", "nodev", "noexec")
# Bytes that are there, but not the host's: the masks themselves are bind mounts of /dev/null.
MASKED_BY_NULL = {"/proc/timer_list", "/proc/keys", "/proc/kcore", "/proc/interrupts", "/proc/sched_debug"}


@dataclass(frozen=True)
class Both:
    """The same probe's findings in both."""

    ours: Facts
    podman: Facts


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    output = tmp_path_factory.mktemp("probes")
    return Both(
        probe_ours("facts", "--syscalls", output=output),
        probe_podman("facts", "--syscalls", output=output),
    )


@pytest.mark.parametrize("name", CAPABILITY_SETS)
def test_capabilities_of_root(both: Both, name: str) -> None:
    assert both.ours["status"][name] == both.podman["status"][name]


@pytest.mark.parametrize("name", ["NoNewPrivs", "Seccomp", "Seccomp_filters", "Uid", "Gid", "Groups"])
def test_credentials(both: Both, name: str) -> None:
    assert both.ours["status"][name] == both.podman["status"][name]


def test_seccomp_filter_is_on(both: Both) -> None:
    assert both.ours["status"]["Seccomp"] == "2"


def test_every_system_call_answers_as_under_podman(both: Both) -> None:
    ours, podman = both.ours["syscalls"], both.podman["syscalls"]
    assert len(ours) > 300
    assert {n: ours[n] for n in ours if ours[n] != podman[n]} == {}


def test_unconfined_is_seen_by_the_system_calls(both: Both, tmp_path: Path) -> None:
    """The comparison above would notice a missing filter."""
    found = probe_ours(
        "facts",
        "--syscalls",
        output=tmp_path / "out",
        toml='network = "none"\nsecurity.seccomp = "unconfined"',
    )
    assert found["status"]["Seccomp"] == "0"
    different = [n for n, answer in found["syscalls"].items() if answer != both.ours["syscalls"][n]]
    assert len(different) > 10


@pytest.mark.parametrize("name", ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"])
def test_namespace_is_private(both: Both, name: str) -> None:
    assert both.ours["namespaces"][name] != os.readlink(f"/proc/self/ns/{name}")


def test_each_container_has_its_own_user_namespace() -> None:
    """Podman's containers share one; of ours, one cannot even name another's processes."""
    text = f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'
    with defined("one", text) as one, defined("two", text) as two:
        one.start()
        two.start()
        spaces = {os.readlink(f"/proc/{each.pid}/ns/user") for each in (one, two)}
        assert len(spaces) == 2
        assert os.readlink("/proc/self/ns/user") not in spaces


def test_root_is_the_user_and_others_are_subordinate(both: Both) -> None:
    for key in ("uid_map", "gid_map", "setgroups"):
        assert both.ours[key] == both.podman[key]
    assert both.ours["uid_map"][:3] == ["0", str(os.getuid()), "1"]


def index_mounts(facts: Facts) -> dict[str, Facts]:
    return {mount["target"]: mount for mount in facts["mounts"]}


def test_mounts_are_as_strict(both: Both) -> None:
    ours, podman = index_mounts(both.ours), index_mounts(both.podman)
    assert set(podman) - set(ours) == set()
    weaker = {
        target: sorted(set(podman[target]["options"]) & set(STRICT) - set(ours[target]["options"]))
        for target in podman
    }
    assert {target: flags for target, flags in weaker.items() if flags} == {}


def test_mounts_beyond_podmans_hide_something(both: Both) -> None:
    """What is mounted in ours only are further masks, and those are empty."""
    for target in set(index_mounts(both.ours)) - set(index_mounts(both.podman)):
        assert both.ours["hidden"][target] in ("0", "0 entries"), target


def test_no_mount_leads_back(both: Both) -> None:
    assert [mount["target"] for mount in both.ours["mounts"] if mount["propagation"]] == []


def test_hidden_files(both: Both) -> None:
    visible = {
        path: found
        for path, found in both.ours["hidden"].items()
        if found not in ("0", "0 entries") and both.podman["hidden"][path] != found
    }
    assert visible == {}
    for path in (
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware",
        "/sys/dev/block",
    ):
        assert both.ours["hidden"][path] in ("0", "0 entries", "ENOENT"), path
    assert both.ours["hidden"]["/proc/kcore"] in ("0", "ENOENT")


def test_read_only_files(both: Both) -> None:
    writable = {path for path, answer in both.ours["writable"].items() if answer == "fine"}
    assert writable <= MASKED_BY_NULL
    assert {path for path, answer in both.podman["writable"].items() if answer != "fine"} & writable == set()


def test_devices(both: Both) -> None:
    """The same nodes, each of its own; nothing of the host's disks, memory or terminals."""
    assert both.ours["devices"] == both.podman["devices"]
    nodes = {name for name, what in both.ours["devices"].items() if what[0] in ("character", "block")}
    assert nodes == {"full", "null", "random", "tty", "urandom", "zero"}


@pytest.mark.parametrize("target", ["/dev/shm", "/dev/mqueue", "/dev/pts"])
def test_fresh_file_systems(both: Both, target: str) -> None:
    ours, podman = index_mounts(both.ours)[target], index_mounts(both.podman)[target]
    assert (ours["type"], ours["root"], ours["super"]) == (podman["type"], podman["root"], podman["super"])


def test_cgroup_is_the_namespaces_root_and_read_only(both: Both) -> None:
    assert "0::/" in both.ours["cgroup"].splitlines()
    assert "ro" in index_mounts(both.ours)["/sys/fs/cgroup"]["options"]
    assert both.ours["writable"]["/sys/fs/cgroup"] == "EROFS"


def test_nothing_is_inherited(both: Both) -> None:
    """Three descriptors: /dev/null and the journal's stream. Only the listing itself was open besides."""
    assert set(both.ours["descriptors"]) == {"0", "1", "2"}
    assert both.ours["descriptors"]["0"] == "/dev/null"
    assert both.ours["descriptors"]["1"].startswith("socket:")


def test_environment(both: Both) -> None:
    """Nothing of the user's session: no addresses of buses, sockets or directories."""
    ours, podman = both.ours["environment"], both.podman["environment"]
    assert set(ours) == set(podman)
    assert {key for key in ours if ours[key] != podman[key]} == {"HOSTNAME", "container"}


def test_limits_are_not_above_podmans(both: Both) -> None:
    def order(value: int) -> float:
        return float("inf") if value < 0 else value

    for name, (soft, hard) in both.ours["limits"].items():
        assert order(soft) <= order(both.podman["limits"][name][0]), name
        assert order(hard) <= order(both.podman["limits"][name][1]), name


@pytest.mark.parametrize(
    "key", ["umask", "directory", "processes", "interfaces", "ping_group_range", "run", "session"]
)
def test_same_as_podman(both: Both, key: str) -> None:
    assert both.ours[key] == both.podman[key]


def test_out_of_memory_score_is_not_better(both: Both) -> None:
    assert int(both.ours["oom_score_adj"]) >= int(both.podman["oom_score_adj"])


def test_keyring_is_its_own(both: Both) -> None:
    assert both.ours["keyring"].rpartition(";")[2].startswith("probe-")


def test_names_are_its_own(both: Both) -> None:
    assert both.ours["hostname"].startswith("probe-")
    assert both.ours["etc"]["hostname"] == both.ours["hostname"] + "\n"
    assert both.ours["hostname"] in both.ours["etc"]["hosts"]
    assert "host.containers.internal" in both.ours["etc"]["hosts"]
    assert both.ours["etc"]["resolv.conf"].splitlines()[0] == "nameserver 169.254.1.1"


def test_own_files_do_not_outlive_a_start() -> None:
    """What a container writes to its hosts file is gone at its next start, as under Podman."""
    script = "grep -q venom /etc/hosts /etc/resolv.conf /etc/hostname && exit 7; " + "; ".join(
        f"echo venom >> /etc/{name}" for name in ("hosts", "resolv.conf", "hostname")
    )
    text = f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "{script}"]\nnetwork = "none"\n'
    with defined("poison", text) as container:
        for _ in range(2):
            container.start()
            wait_until(lambda: container.show("ActiveState") in ("inactive", "failed"), "it ends")
            assert container.show("ExecMainStatus") == "0"
