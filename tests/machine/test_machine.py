"""The private machine keeps its promises: answers come back, and nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TOOL = str(CHECKOUT / "tools/machine")
sys.path.insert(0, str(CHECKOUT / "tools"))

from machinelib import cache, images  # noqa: E402
from machinelib.cgroup import PREFIX, find_hierarchy  # noqa: E402
from machinelib.installer import Destination, install_tree  # noqa: E402
from machinelib.native import probe_support  # noqa: E402

REFUSED = probe_support()
native = pytest.mark.skipif(REFUSED is not None, reason=str(REFUSED))


def run_machine(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOL, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=300
    )


def list_traces() -> set[str]:
    """All that a machine could leave on the host: cgroups, mounts, processes, files."""
    hierarchy = find_hierarchy()
    cgroups = {str(path) for path in hierarchy.glob(f"{PREFIX}-*")} if hierarchy else set()
    mounts = set(Path("/proc/self/mountinfo").read_text().splitlines())
    inits = set()
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            inits |= {str(path.parent)} if PREFIX in path.read_text() else set()
        except OSError:
            continue
    machines = (
        Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "usercontainerd/machine/machines"
    )
    files = {str(path) for path in machines.iterdir()} if machines.is_dir() else set()
    return cgroups | mounts | inits | files


@pytest.fixture
def name() -> str:
    return f"test-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"


@pytest.fixture
def booted(name: str) -> Iterator[str]:
    done = run_machine("boot", "--name", name)
    assert done.returncode == 0, done.stderr
    yield name
    run_machine("stop", "--name", name)


def list_own_traces(name: str) -> list[str]:
    return [trace for trace in list_traces() if name in trace]


@native
def test_run_brings_back_output_and_status() -> None:
    done = run_machine("run", "--", "sh", "-c", "cat; echo problem >&2; exit 7", stdin="hello")
    assert (done.stdout, done.stderr, done.returncode) == ("hello", "problem\n", 7)


@native
def test_commands_that_do_not_run(booted: str) -> None:
    assert run_machine("run", "--name", booted, "--", "no-such-program").returncode == 127
    assert run_machine("run", "--name", booted, "--", "/etc/passwd").returncode == 126
    assert run_machine("run", "--name", booted, "--", "sh", "-c", "kill -9 $$").returncode == 137
    started = time.monotonic()
    done = run_machine("run", "--name", booted, "--timeout", "0.5", "--", "sleep", "60")
    assert done.returncode == 124
    assert time.monotonic() - started < 50
    done = run_machine("run", "--name", booted, "--user", "mallory", "--", "true")
    assert done.returncode == 125
    assert "no user 'mallory'" in done.stderr


@native
def test_a_session_is_a_login(booted: str) -> None:
    script = """
        id -u; id -Gn; pwd; tail -n 1 /proc/self/cgroup
        systemctl is-system-running; systemctl --user is-system-running
        systemd-run --user --quiet --wait --pipe -p Delegate=yes echo from a unit
        journalctl --user --quiet --output=cat --identifier=sh
        env
    """
    done = run_machine("run", "--name", booted, "--", "sh", "-s", stdin=script)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["1000", "alice systemd-journal", "/home/alice"], done.stderr
    assert re.fullmatch(r"0::/user\.slice/user-1000\.slice/machine-\d+\.scope", lines[3])
    assert lines[4:7] == ["running", "running", "from a unit"]
    assert {"HOME=/home/alice", "XDG_RUNTIME_DIR=/run/user/1000"} <= set(lines)
    assert run_machine("run", "--name", booted, "--user", "root", "--", "id", "-u").stdout == "0\n"


@native
def test_the_users_journal_works(booted: str) -> None:
    # The journal learns the unit of a line from its sender, who therefore stays a moment.
    script = """
        systemd-run --user --quiet --wait --unit=x sh -c 'echo Hi; sleep 0.3'
        journalctl --user --unit=x --output=json
    """
    done = run_machine("run", "--name", booted, "--", "sh", "-s", stdin=script)
    messages = [json.loads(line)["MESSAGE"] for line in done.stdout.splitlines()]
    assert "Hi" in messages


@native
def test_the_home_holds_a_rootless_overlay(booted: str) -> None:
    script = """
        mkdir -p lower/d upper work merged && touch lower/d/file
        unshare -Urm sh -ec 'mount -t overlay x -o userxattr,lowerdir=lower,upperdir=upper,workdir=work merged
            rm -r merged/d; mkdir merged/d; ls merged/d; unshare -pf --mount-proc true; echo fine'
    """
    done = run_machine("run", "--name", booted, "--", "sh", "-ec", script)
    assert done.stdout == "fine\n", done.stderr


@native
def test_the_host_is_out_of_reach(booted: str) -> None:
    for target in ("/checkout/x", "/proc/sys/kernel/hostname", "/sys/kernel/x"):
        done = run_machine("run", "--name", booted, "--user", "root", "--", "sh", "-c", f"echo x > {target}")
        assert "Read-only file system" in done.stderr, target


@native
def test_a_stopped_machine_leaves_nothing(name: str) -> None:
    assert run_machine("boot", "--name", name).returncode == 0
    assert name in run_machine("list").stdout
    assert list_own_traces(name)
    assert run_machine("boot", "--name", name).returncode == 125
    assert run_machine("stop", "--name", name).returncode == 0
    assert not list_own_traces(name)
    assert name not in run_machine("list").stdout


@native
def test_a_machine_that_powers_off_leaves_nothing(booted: str) -> None:
    run_machine(
        "run", "--name", booted, "--user", "root", "--", "systemctl", "poweroff", "--force", "--force"
    )
    deadline = time.monotonic() + 60
    while list_own_traces(booted) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list_own_traces(booted)


@native
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_tool_leaves_nothing(number: signal.Signals) -> None:
    command = [TOOL, "run", "--", "sh", "-c", "echo up; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == "up\n"
        assert list_own_traces(f"run-{tool.pid}")
        tool.send_signal(number)
        tool.wait(60)
    run_machine("list")  # any later call sweeps what a SIGKILL left
    assert not list_own_traces(f"run-{tool.pid}")


@native
def test_two_machines_at_once_do_not_meet() -> None:
    command = [
        TOOL,
        "run",
        "--user",
        "root",
        "--",
        "sh",
        "-c",
        "touch /etc/mark; sleep 1; ls /etc | grep -c mark",
    ]
    tools = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [tool.communicate(timeout=300)[0] for tool in tools] == ["1\n", "1\n"]


@native
def test_the_registry_serves_its_images() -> None:
    script = """
        curl --silent http://localhost:5000/v2/_catalog
        podman run --quiet --rm localhost:5000/busybox echo from busybox
        podman run --quiet --rm localhost:5000/multi:docker echo from docker
        podman run --quiet --detach --publish 8080:8080 localhost:5000/web >/dev/null
        curl --silent --retry 200 --retry-all-errors --retry-max-time 60 http://127.0.0.1:8080/
    """
    done = run_machine("run", "--registry", "--", "sh", "-s", stdin=script)
    assert json.loads(done.stdout.splitlines()[0]) == {"repositories": ["busybox", "multi", "web"]}
    assert done.stdout.splitlines()[1:] == [
        "from busybox",
        "from docker",
        "It works: hello from usercontainerd",
    ]


@native
def test_the_kernel_lane_has_limits_and_leaves_nothing() -> None:
    script = """
        cat /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers
        systemd-run --user --quiet --wait --unit=eat -p MemoryMax=20M python3 -c 'bytearray(50 << 20)'
        systemctl --user show -p Result eat; echo problem >&2; exit 7
    """
    command = [TOOL, "run", "--kernel", "--", "sh", "-s"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as tool:
        out, err = tool.communicate(script, timeout=300)
    assert (out.splitlines(), err, tool.returncode) == (
        ["cpu io memory pids", "Result=oom-kill"],
        "problem\n",
        7,
    )
    assert not list_own_traces(f"run-{tool.pid}")


def test_two_builders_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = []

    def build(stage: Path) -> None:
        built.append(stage)
        time.sleep(0.2)
        (stage / "tree").touch()

    def obtain() -> cache.Artifact:
        return cache.obtain_artifact("thing", "1", build)

    with ThreadPoolExecutor() as pool:
        artifacts = [future.result() for future in [pool.submit(obtain) for _ in range(3)]]
    assert len(built) == 1
    assert all((artifact.path / "tree").exists() for artifact in artifacts)
    # What is in use stays; what nobody holds goes.
    assert cache.clean_artifacts(lambda _name, _age: True) == []
    for artifact in artifacts:
        artifact.release()
    assert cache.clean_artifacts(lambda _name, _age: True) == ["thing-1"]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def build(stage: Path) -> None:
        (stage / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.obtain_artifact("thing", "1", build)
    assert [path.name for path in cache.find_cache_directory().iterdir()] == ["locks"]


def test_a_tree_that_another_removes_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's keeper ends while another process sweeps."""
    tree = tmp_path / "tree"
    for number in range(5):
        (tree / str(number)).mkdir(parents=True)
    really = os.rmdir
    taken: list[str] = []

    def be_late(path: str, **options: int | None) -> None:
        if not taken:
            taken.append(path)
            really(path, **options)
        really(path, **options)

    monkeypatch.setattr(os, "rmdir", be_late)
    cache.remove_tree(tree)
    assert taken and not tree.exists()
    cache.remove_tree(tree)


def test_the_installer_places_and_rewrites(tmp_path: Path) -> None:
    checkout, root = tmp_path / "checkout", tmp_path / "root"
    for path, text in {
        "bin/tool": 'sys.path.insert(0, "x")  # location of the package\n',
        "libexec/usercontainerd-generator": "g",
        "units/a.slice": "u",
        "man/tool.1": "m",
        "usercontainerd/base/x.py": "p",
        "usercontainerd/base/__pycache__/x.pyc": "c",
    }.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text)
    install_tree(checkout, Destination(root))
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "usr/bin/tool",
        "usr/lib/python3/dist-packages/usercontainerd/base/x.py",
        "usr/lib/systemd/user-generators/usercontainerd-generator",
        "usr/lib/systemd/user/a.slice",
        "usr/libexec/usercontainerd/usercontainerd-generator",
        "usr/share/man/man1/tool.1",
    ]
    line = 'sys.path.insert(0, "/usr/lib/python3/dist-packages")  # location of the package\n'
    assert (root / "usr/bin/tool").read_text() == line
    assert (root / "usr/bin/tool").stat().st_mode & 0o777 == 0o755


def test_the_installer_leaves_the_package_to_others(tmp_path: Path) -> None:
    sites = ("/usr/lib/python3.14/site-packages", "/usr/lib64/python3.14/site-packages")
    install_tree(CHECKOUT, Destination(tmp_path, "/opt/uc", sites, with_package=False))
    assert not list(tmp_path.rglob("site-packages"))
    programs = tmp_path / "opt/uc/libexec/usercontainerd"
    assert f'sys.path[:0] = ["{sites[0]}", "{sites[1]}"]' in (programs / "prepare").read_text()
    unit = (tmp_path / "opt/uc/lib/systemd/user/container@.service").read_text()
    assert "\nExecStart=/opt/uc/libexec/usercontainerd/launch %i\n" in unit


def test_image_building_is_deterministic(tmp_path: Path) -> None:
    nodes = [images.make_directory("d"), images.make_file("d/f", "text"), images.make_whiteout("d/old")]
    first, second = (images.build_layer(nodes, tmp_path) for _ in range(2))
    assert first == second
    assert images.compute_digest(first.path.read_bytes()) == first.digest
    plain = images.build_layer(nodes, tmp_path, "tar")
    assert plain.digest == plain.diff_id == first.diff_id
    image = images.build_image([first], {"Cmd": ["sh"]}, "amd64")
    storage = images.RegistryStorage(tmp_path / "registry")
    descriptor = storage.add_image("a/b", "latest", image)
    assert storage.blob_path(descriptor.digest).read_bytes() == images.render_manifest(image)
