"""The layers that lie over the root file system in a machine: the installed checkout, the seeded registry."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import partial
from pathlib import Path

from machinelib.cache import Artifact, clean_artifacts, obtain_artifact
from machinelib.installer import Destination, compile_package, install_tree, list_sources

_INSTALLATION_AGE = 600.0

CHECKOUT = Path(__file__).resolve().parents[2]


def obtain_installation(system: Artifact) -> Artifact:
    """The checkout as installed (in `tree` of the artifact), made anew when a file of it has changed."""
    while True:
        digest = hash_installation(system)
        with suppress(_ChangedError):
            return obtain_artifact("install", digest, partial(_install, system=system, digest=digest))


class _ChangedError(Exception):
    """Someone edited the checkout while it was being installed."""


def hash_installation(system: Artifact) -> str:
    """Changes with the checkout's content and with the Python that compiles it."""
    digest = hashlib.sha256(system.path.name.encode())
    for path in [*list_sources(CHECKOUT), Path(__file__).with_name("installer.py")]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(CHECKOUT)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _install(stage: Path, system: Artifact, digest: str) -> None:
    tree = stage / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    destination = Destination(tree)
    install_tree(CHECKOUT, destination)
    compile_package(destination, system.path / "tree")
    if hash_installation(system) != digest:
        raise _ChangedError
    # Every edit makes one of these, and machines that use them keep theirs.
    clean_artifacts(lambda name, age: name.startswith("install-") and age > _INSTALLATION_AGE)
