"""The layers: a package imports only what stands above it; same-rank packages never import each other."""

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
PACKAGE = TOP / "usercontainerd"
RANKS = {
    "base": 0,
    "kernel": 1,
    "oci": 1,
    "definition": 1,
    "registry": 2,
    "store": 2,
    "network": 2,
    "runtime": 2,
    "systemd": 2,
    "trust": 2,
    "engine": 3,
    "daemon": 4,
    "cli": 4,
    "generator": 4,
}
DOORS = ("daemon", "cli", "generator")
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    """The packages of this project that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "usercontainerd" and len(parts) > 1:
                found.add(parts[1])
    return found


def module_id(path: Path) -> str:
    return str(path.relative_to(TOP))


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_imports_follow_the_ranks(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0]
    if package == "__init__.py":
        assert not imported_packages(path)
        return
    for other in imported_packages(path) - {package}:
        assert RANKS[other] < RANKS[package], f"{package} must not import {other}"


def test_every_package_has_a_rank() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages <= set(RANKS)


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_only_doors_print_and_read_the_environment(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0]
    # Bodies of exec'd programs: each is a door of its own, handed the environment by its script.
    if package in DOORS or path.name.endswith("_program.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: print"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            where = f"{node.value.id}.{node.attr}"
            assert where not in ("os.environ", "sys.argv", "sys.exit"), f"line {node.lineno}: {where}"


def test_no_import_cycle_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        name = ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("usercontainerd."):
                graph[name].add(node.module)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())
