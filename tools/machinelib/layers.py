"""The layers that lie over the root file system in a machine: the installed checkout, the seeded registry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from machinelib.cache import Artifact, obtain_artifact
from machinelib.installer import compile_package, install_tree, list_sources

CHECKOUT = Path(__file__).resolve().parents[2]


def obtain_installation(system: Artifact) -> Artifact:
    """The checkout as installed (in `tree` of the artifact), made anew when a file of it has changed."""
    return obtain_artifact("install", hash_installation(system), lambda stage: _install(stage, system))


def hash_installation(system: Artifact) -> str:
    """Changes with the checkout's content and with the Python that compiles it."""
    digest = hashlib.sha256(system.path.name.encode())
    for path in [*list_sources(CHECKOUT), Path(__file__).with_name("installer.py")]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(CHECKOUT)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _install(stage: Path, system: Artifact) -> None:
    tree = stage / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    install_tree(CHECKOUT, tree)
    compile_package(tree, system.path / "tree")
