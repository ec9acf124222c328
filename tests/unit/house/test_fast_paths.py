"""What the fast paths import: a module that creeps in costs every start of every container.

A set of modules, not a time: the same on a slow machine and on a fast one.
"""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
# The cost of each, measured with `python3 -X importtime`: 3 to 200 ms.
HEAVY = {
    "argparse", "asyncio", "ctypes", "dataclasses", "dbus_next", "enum", "inspect", "json", "logging", "os", "pathlib",
    "pyroute2", "re", "requests", "shutil", "socket", "subprocess", "systemd", "tempfile", "toml", "tomllib",
    "typing", "urllib",
}  # fmt: skip


def loaded_modules(statement: str) -> set[str]:
    """The modules that are loaded after ``statement``, in an interpreter started as our programs are."""
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def project_modules(modules: set[str]) -> set[str]:
    return {name.removeprefix("usercontainerd.") for name in modules if name.startswith("usercontainerd.")}


def test_launcher_imports_little() -> None:
    modules = loaded_modules("import usercontainerd.runtime.launcher")
    assert not modules & HEAVY
    assert project_modules(modules) == {
        "base",
        "base.errors",
        "base.names",
        "base.paths",
        "kernel",
        "kernel.cgroups",
        "kernel.idmap",
        "kernel.userns",
        "runtime",
        "runtime.launcher",
        "runtime.plan",
    }


def test_what_the_launcher_imports_later_is_light_too() -> None:
    later = ("kernel.atomicfile", "kernel.notification", "kernel.rawmount", "kernel.spawning", "kernel.tap")
    modules = loaded_modules(f"import {', '.join(f'usercontainerd.{name}' for name in later)}")
    modules |= loaded_modules("import usercontainerd.runtime.copier, usercontainerd.runtime.remains")
    assert not modules & HEAVY


def test_cleanup_imports_little() -> None:
    modules = loaded_modules(
        "import usercontainerd.runtime.cleanup, usercontainerd.runtime.summary, usercontainerd.kernel.unixdiag"
    )
    assert not modules & HEAVY
    assert "usercontainerd.kernel.userns" not in modules


def test_the_daemon_starts_without_what_most_callers_do_not_need() -> None:
    """Somebody waits for its first answer: what reads TOML or makes containers comes when it is used."""
    modules = loaded_modules(
        "import site; site.main(); sys.modules['gi'] = None; import usercontainerd.daemon.main"
    )
    assert not {
        name for name in modules if name.startswith(("gi.", "requests", "pyroute2", "systemd", "tomllib"))
    }
    assert not project_modules(modules) & {
        "definition.reader",
        "engine.containers.creation",
        "engine.host.doctor",
        "engine.images.removal",
        "engine.containers.inspection",
        "engine.containers.summaries",
        "registry.client",
    }
    program = (TOP / "libexec/usercontainerd").read_text()
    assert program.index('sys.modules["gi"] = None') < program.index("import main")


def test_a_health_check_imports_little() -> None:
    """It runs every few seconds, of every container that has one; os is what a fork in Python costs anyway."""
    modules = loaded_modules("import usercontainerd.engine.containers.health_program")
    assert not modules & (HEAVY - {"os"})
    assert project_modules(modules) == {
        "base",
        "base.errors",
        "base.names",
        "base.paths",
        "engine",
        "engine.containers",
        "engine.containers.execution",
        "engine.containers.health_program",
        "engine.containers.lookup",
        "kernel",
        "kernel.atomicfile",
        "kernel.cgroups",
        "kernel.idmap",
        "kernel.signals",
        "runtime",
        "runtime.health",
        "runtime.plan",
    }


def test_heavy_modules_would_be_noticed() -> None:
    assert "json" in loaded_modules("import json") & HEAVY


def test_records_are_made_in_one_way() -> None:
    """A class of the real decorator brings ``inspect`` to every command that needs the module."""
    found = [
        str(path.relative_to(TOP))
        for path in (TOP / "usercontainerd").rglob("*.py")
        if path.name != "records.py"
        and re.search(r"^\s*(from|import) dataclasses", path.read_text(encoding="utf-8"), re.M)
    ]
    assert found == []
