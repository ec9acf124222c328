"""Listing images is a fast path: what it imports is bounded (by set, not by time)."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
HEAVY = {
    "argparse",
    "asyncio",
    "ctypes",
    "dataclasses",
    "hashlib",
    "inspect",
    "logging",
    "requests",
    "socket",
    "ssl",
}
HEAVY |= {"subprocess", "tempfile", "tomllib", "typing", "urllib", "zlib"}


def loaded(statement: str) -> set[str]:
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_records_of_images() -> None:
    assert not loaded("import usercontainerd.store.images") & HEAVY


def test_the_worker_needs_no_network() -> None:
    modules = loaded("import usercontainerd.store.worker_process")
    assert not modules & {
        "requests",
        "urllib3",
        "ssl",
        "http",
        "asyncio",
        "dataclasses",
        "subprocess",
        "tomllib",
    }


def test_pulling_is_loaded_only_when_it_is_needed() -> None:
    modules = loaded("import usercontainerd.engine.transfers.obtaining")
    assert not modules & {"requests", "urllib3", "ssl", "http", "asyncio", "tomllib"}
