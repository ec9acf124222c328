"""The machine's own registry: Debian's docker-registry on loopback, seeded before it starts.

It is a layer over the root file system: a boot with it costs nothing, and what a test does to it is gone with
the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from machinelib import images, samples
from machinelib.cache import Artifact, obtain_artifact, say
from machinelib.recipe import hash_inputs

STORAGE = "var/lib/registry"

_CONFIGURATION = """\
version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: /var/lib/registry
  delete:
    enabled: true
http:
  addr: 127.0.0.1:5000
"""

# Started only once it answers, so that a machine that is up has a registry.
_UNIT = """\
[Unit]
Description=Container registry of this machine (localhost:5000)

[Service]
ExecStart=/usr/bin/docker-registry serve /etc/machine-registry.yml
ExecStartPost=/bin/sh -c 'until curl -s -o /dev/null http://127.0.0.1:5000/v2/; do sleep 0.05; done'
TimeoutStartSec=30
"""

_FILES = {
    "etc/machine-registry.yml": _CONFIGURATION,
    "etc/systemd/system/machine-registry.service": _UNIT,
}
_WANTED = "etc/systemd/system/multi-user.target.wants/machine-registry.service"

_Seed = Callable[[Path, Path, Path], None]


def obtain_registry(system: Artifact, big: bool) -> list[Artifact]:
    """The layers that put the registry into a machine."""
    layers = [_obtain_layer("registry", system, samples.seed_small_images)]
    if big:
        layers.append(_obtain_layer("registrybig", system, samples.seed_big_image))
    return layers


def list_artifact_names(system: Artifact | str) -> list[str]:
    """What `clean` is to keep."""
    return [f"{kind}-{_hash_layer(system)}" for kind in ("registry", "registrybig")]


def _hash_layer(system: Artifact | str) -> str:
    name = system if isinstance(system, str) else system.path.name
    sources = [Path(str(module.__file__)).read_text() for module in (images, samples)]
    return hash_inputs(name, sources, _FILES)


def _obtain_layer(kind: str, system: Artifact, seed: _Seed) -> Artifact:
    return obtain_artifact(kind, _hash_layer(system), lambda stage: _build_layer(stage, kind, system, seed))


def _build_layer(stage: Path, kind: str, system: Artifact, seed: _Seed) -> None:
    say(f"seeding the machine's registry ({kind})")
    tree = stage / "tree"
    # 0755 whatever the umask: the directories lie over the system's own.
    for directory in (tree, *(tree / name for name in _list_parents())):
        directory.mkdir()
        directory.chmod(0o755)
    for name, text in _FILES.items():
        (tree / name).write_text(text)
        (tree / name).chmod(0o644)
    (tree / _WANTED).symlink_to("../machine-registry.service")
    with tempfile.TemporaryDirectory(dir=stage) as work:
        seed(system.path / "tree", tree / STORAGE, Path(work))


def _list_parents() -> list[str]:
    needed = {parent for name in (*_FILES, _WANTED, f"{STORAGE}/x") for parent in Path(name).parents}
    return sorted(str(parent) for parent in needed if parent != Path("."))
