"""What all tests of a machine share, and the guard that fails a module of tests that leaves it changed.

Whatever a test makes, it takes away; what it has changed, it puts back. Three things may be left behind, since no test
may depend on their not being there, or being there:

- images in the user's store: they are a cache. Whoever needs one pulls it, and whoever counts images or wants a store
  of which it knows all has one of its own (``places.py``). But a name of the machine's registry means the registry's
  image, whenever it is here.
- repositories of names of their own in the machine's registry, which has no way of removing one;
- what Podman and GnuPG keep running for their next call: Podman's pause process, in a scope, and gpg-agent.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import stat
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from tests.support.containers import run

REGISTRY = "localhost:5000"
MANIFESTS = ", ".join(
    f"application/vnd.{name}+json"
    for name in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
PATIENCE = 20.0  # seconds for what is ending: processes, units
FIRST_MAPPED = 100_000  # user IDs from here on are the containers' (see subuid(5) of the machine)
# Comes by itself when somebody calls, and leaves by itself.
BUS_SERVICES = ("usercontainerd.service", "dbus.service", "dbus-broker.service")
KEPT_UNITS = "podman-"
KEPT_PROCESSES = ("catatonit -P", "gpg-agent ", "/usr/lib/systemd/systemd --user")
NO_LOGINS: dict[str, object] = {"auths": {}}

# What one part of the world has: what it is, and how it is, so that two looks can be compared.
Part = dict[str, str]
World = dict[str, Part]
# Of these only what was there before counts: new ones may come, and be gone again.
MAY_GROW = ("registry", "image")
# And of these what was there before may go, too.
MAY_SHRINK = ("image", "process", "mount")


def look_at_world() -> World:
    """All of it, in a third of a second."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    return {
        "registry": look_at_registry(REGISTRY),
        "container": look_at_containers(),
        "unit": look_at_units(),
        "image": look_at_images(),
        "file": {
            path: content
            for top in (
                *(config / name for name in ("usercontainerd", "containers", "systemd", "autostart")),
                runtime / "systemd/user",
                runtime / "systemd/user.control",
                runtime / "systemd/transient",
                runtime / "containers/auth.json",
                Path.home() / ".docker",
            )
            for path, content in look_at_files(top).items()
        },
        "process": look_at_processes(Path("/proc")),
        "mount": look_at_mounts(Path("/proc/self/mountinfo").read_text()),
        "environment of the tests": {
            **{key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
            "the working directory": os.getcwd(),
        },
        "environment of systemd": look_at_manager_environment(),
    }


def compare_worlds(before: World, after: World) -> list[str]:
    """Say what has been left changed. Pure."""
    problems = []
    for kind, old in before.items():
        new = after[kind]
        if kind not in MAY_GROW:
            problems += [
                f"{kind} left behind: {name}: {new[name]}" for name in sorted(new.keys() - old.keys())
            ]
        if kind not in MAY_SHRINK:
            problems += [
                f"{kind} taken away: {name}: {old[name]}"
                for name in sorted(old.keys() - new.keys())
                if (kind, old[name]) != ("unit", "failed")  # that some failed earlier, anybody may forget
            ]
        problems += [
            f"{kind} changed: {name}: {new[name]}, before: {old[name]}"
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        ]
    return problems


def look_at_registry(address: str) -> Part:
    """The digest of each tag of a registry; nothing if there is none."""
    connection = http.client.HTTPConnection(address, timeout=60)

    def get(path: str, method: str = "GET") -> tuple[Message, bytes]:
        connection.request(method, path, headers={"Accept": MANIFESTS})
        answer = connection.getresponse()
        return answer.headers, answer.read()

    found = {}
    try:
        for repository in json.loads(get("/v2/_catalog?n=1000")[1])["repositories"]:
            for tag in json.loads(get(f"/v2/{repository}/tags/list")[1]).get("tags") or ():
                headers, _ = get(f"/v2/{repository}/manifests/{tag}", "HEAD")
                found[f"{repository}:{tag}"] = headers.get("Docker-Content-Digest", "nothing")
    except ConnectionRefusedError:
        return {}
    finally:
        connection.close()
    return found


def look_at_containers() -> Part:
    """Containers, running or not; in which state is the units' matter."""
    return dict.fromkeys(
        run("usercontainer", "ps", "-a", "--format", "{{.Names}}").stdout.split(), "is there"
    )


def look_at_units() -> Part:
    """The user's units that are not at rest, but for those that come and go by themselves."""
    states = "--state=active,reloading,activating,deactivating,failed,maintenance"
    kinds = "--type=service,scope,socket,timer,path,slice,target"
    text = run("systemctl", "--user", "list-units", "--plain", "--no-legend", "--full", states, kinds).stdout
    found = {}
    for line in text.splitlines():
        name, _, active = line.split()[:3]
        if active == "failed" or not (name in BUS_SERVICES or name.startswith(KEPT_UNITS)):
            found[name] = active
    return {name: state for name, state in found.items() if not name.endswith(".slice")}


def look_at_images() -> Part:
    """What the names of the machine's registry mean in the user's store."""
    form = "{{.Repository}}:{{.Tag}} {{.ID}}"
    text = run("usercontainer", "images", "--no-trunc", "--noheading", "--format", form).stdout
    lines = (line.split(" ", 1) for line in text.splitlines())
    return {name: identity for name, identity in lines if name.startswith(f"{REGISTRY}/")}


def look_at_files(top: Path) -> Part:
    """Files below a directory (or one file), with what is in them; directories that are empty are nothing."""
    if top.is_dir():
        places = [Path(base, name) for base, _, names in os.walk(top) for name in names]
        # A link to a directory is among the directories.
        places += [
            Path(base, name)
            for base, names, _ in os.walk(top)
            for name in names
            if Path(base, name).is_symlink()
        ]
    else:
        places = [top] if os.path.lexists(top) else []
    return {str(path): _describe_file(path) for path in places if not _is_nothing(path)}


def _is_nothing(path: Path) -> bool:
    """A file of logins without any; a unit that may stay."""
    if path.name == "auth.json" and path.is_file():
        return bool(json.loads(path.read_bytes() or b"{}") in ({}, NO_LOGINS))
    return path.name.startswith(KEPT_UNITS)


def _describe_file(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"link to {os.readlink(path)}"
    if not stat.S_ISREG(status.st_mode):
        return stat.filemode(status.st_mode)
    return f"{status.st_size} bytes, {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def look_at_processes(proc: Path) -> Part:
    """Processes of the user and of the users of containers, but for our own parents and those of bus services."""
    ours = _list_parents(proc)
    found = {}
    for directory in proc.glob("[0-9]*"):
        try:
            owner = directory.stat().st_uid
            if int(directory.name) in ours or not (owner == os.getuid() or owner >= FIRST_MAPPED):
                continue
            group = (directory / "cgroup").read_text().rpartition("::")[2].strip()
            command = (
                (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            )
            name, _, rest = (directory / "stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is no business of ours
        if not any(unit in group for unit in BUS_SERVICES) and not command.startswith(KEPT_PROCESSES):
            start = rest.split()[19]  # ticks after boot: numbers are used again
            found[f"{directory.name} from {start}"] = f"{command or name.partition('(')[2]} in {group}"
    return found


def _list_parents(proc: Path) -> set[int]:
    found = set()
    number = os.getpid()
    while number:
        found.add(number)
        number = int((proc / str(number) / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def look_at_mounts(text: str) -> Part:
    """Mount points of mountinfo (see proc_pid_mountinfo(5)), with what is mounted there. Pure."""
    found: Part = {}
    for line in text.splitlines():
        first, _, second = line.partition(" - ")
        point = first.split()[4]
        found[point] = f"{found[point]}, " if point in found else ""
        found[point] += " ".join(second.split()[:2])
    return found


def look_at_manager_environment() -> Part:
    """The variables that systemd gives to services."""
    lines = run("systemctl", "--user", "show-environment").stdout.splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


class Guard:
    """What the world was like at the last look; each module is compared with what the one before it left."""

    def __init__(self) -> None:
        self.last = look_at_world()

    def check(self, patience: float = PATIENCE) -> list[str]:
        """Return what is changed since; what is ending has so many seconds for that."""
        end = time.monotonic() + patience
        while True:
            now = look_at_world()
            problems = compare_worlds(self.last, now)
            if not problems or time.monotonic() > end:
                self.last = now
                return problems
            time.sleep(0.2)


@pytest.fixture(scope="session")
def world_guard() -> Guard:
    """One look before the first test."""
    return Guard()


@pytest.fixture(scope="module", autouse=True)
def unchanged_world(world_guard: Guard) -> Iterator[None]:
    """Fail the module that leaves behind, takes away or changes what other tests have; see the module's docstring."""
    yield
    if problems := world_guard.check():
        pytest.fail("this module's tests leave the machine changed:\n" + "\n".join(problems), pytrace=False)
