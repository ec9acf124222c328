"""What the commands that have to be fast import: a module that creeps in costs every call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
# The cost of each, measured with `python3 -X importtime`: 3 to 200 ms.
HEAVY = {
    "argparse", "asyncio", "ctypes", "dataclasses", "datetime", "dbus_next", "enum", "hashlib", "inspect", "json",
    "logging", "pathlib", "pyroute2", "re", "requests", "select", "shutil", "signal", "socket", "subprocess", "systemd",
    "tempfile", "toml", "tomllib", "typing", "urllib",
}  # fmt: skip
EVERY = {"base", "base.errors", "base.names", "base.paths", "cli", "cli.call", "cli.main", "cli.options", "cli.output",
         "engine", "engine.containers", "engine.containers.lookup", "kernel", "kernel.cgroups",
         "kernel.signals"}  # fmt: skip
BUS = {"systemd", "systemd.bus", "systemd.journal", "systemd.manager", "systemd.message", "systemd.wire"}
VERBS = {
    "exec": EVERY | {"cli.execute", "engine.containers.execution"},
    "ps": EVERY | BUS | {"base.times", "cli.listing", "cli.ps", "cli.selection", "definition", "definition.search",
                         "engine.containers.listing", "kernel.idmap", "runtime", "runtime.health", "runtime.plan",
                         "runtime.summary"},
    "images": (EVERY - {"base.names", "engine", "engine.containers", "engine.containers.lookup", "kernel.cgroups",
                         "kernel.signals"})
              | {"base.sizes", "base.times", "base.typedjson", "cli.images", "cli.listing", "kernel.atomicfile",
                 "kernel.trees", "oci", "oci.digest", "oci.reference", "store", "store.blobs", "store.images",
                 "store.layers", "store.layout", "store.locks", "store.records"},
    "start": EVERY | BUS | {"cli.lifecycle", "cli.selection", "engine.containers.lifecycle"},
    "stop": EVERY | BUS | {"cli.lifecycle", "cli.selection", "engine.containers.lifecycle"},
    "logs": EVERY | BUS | {"base.times", "cli.logs", "engine.containers.lifecycle", "engine.containers.logs",
                           "kernel.spawning"},
}  # fmt: skip

ALLOWED = {"images": {"enum", "json", "re"}}  # its records are JSON, and digests and names are checked


def loaded_modules(verb: str) -> set[str]:
    """The modules that are loaded once a verb has been found, in an interpreter started as our programs are."""
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r})\n"
        "from usercontainerd.cli import call, main, options\n"
        f"main.load_verb({verb!r})\n"
        f"if {verb!r} == 'ps': import usercontainerd.systemd.manager\n"
        "print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("verb", VERBS)
def test_imports_of_a_verb(verb: str) -> None:
    modules = loaded_modules(verb)
    assert not modules & (HEAVY - ALLOWED.get(verb, set()))
    ours = {name.removeprefix("usercontainerd.") for name in modules if name.startswith("usercontainerd.")}
    assert ours == VERBS[verb]


def test_overview_needs_no_verb() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r}); import usercontainerd.cli.main; print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    modules = set(result.stdout.split())
    assert not modules & HEAVY
    assert not [name for name in modules if name.startswith("usercontainerd.engine")]
