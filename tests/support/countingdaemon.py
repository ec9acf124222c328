"""The daemon, able to tell what it holds; for tests of leaks. Run in its place by a drop-in of its unit::

    ExecStart=/usr/bin/python3 -I …/countingdaemon.py PROGRAM RESULT

At each SIGUSR1 it writes RESULT, one JSON object: objects by type, tasks, threads, allocated blocks, and, with
``TRACE=1`` in its environment, what was allocated where.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import threading
import tracemalloc
from collections import Counter
from types import FrameType
from typing import Any

FEW = 10


def count() -> dict[str, Any]:
    """What there is now."""
    remembered = sys.modules["dbus_next.signature"].SignatureTree._cache
    if len(remembered) <= FEW:
        remembered.clear()
    gc.collect()
    objects = gc.get_objects()
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    del objects
    found: dict[str, Any] = {
        "types": types,
        "blocks": sys.getallocatedblocks(),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }
    if tracemalloc.is_tracing():
        found["traced"] = tracemalloc.get_traced_memory()
        found["top"] = [str(each) for each in tracemalloc.take_snapshot().statistics("lineno")[:40]]
    return found


def import_everything() -> None:
    """All modules of ours, which else are imported when they are first needed."""
    package = sys.modules["usercontainerd"]
    for module in pkgutil.walk_packages(package.__path__, "usercontainerd."):
        try:
            importlib.import_module(module.name)
        except ImportError:
            pass  # it needs something that is optional


def main() -> None:
    """Run the daemon."""
    program, result = sys.argv[1:3]

    def write(_number: int, _frame: FrameType | None) -> None:
        # What comes once, what goes after a while, or from a number on, would hide what stays for ever.
        import_everything()
        sys.modules["usercontainerd.daemon.jobs"].KEPT = 0.2  # type: ignore[attr-defined]
        sys.modules["usercontainerd.daemon.reading"].MAX_SIGNATURES = FEW  # type: ignore[attr-defined]
        with open(f"{result}.new", "w", encoding="utf-8") as file:
            json.dump(count(), file)
        os.rename(f"{result}.new", result)

    signal.signal(signal.SIGUSR1, write)
    if os.environ.get("TRACE"):
        tracemalloc.start(8)
    sys.argv = [program]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
