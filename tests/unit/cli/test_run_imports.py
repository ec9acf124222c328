"""What `run` imports until a container of an image that is here can start: it is nearly half of the command's time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
# ``json`` and ``re`` read the image's records; ``enum`` they bring themselves. ``toml`` writes the definition.
NEEDLESS = {
    "argparse", "asyncio", "ctypes", "dataclasses", "datetime", "dbus_next", "encodings.ascii", "hashlib", "inspect",
    "logging", "pathlib", "pyroute2", "requests", "shutil", "socket", "string", "subprocess", "systemd", "tempfile",
    "tomllib", "typing", "urllib",
}  # fmt: skip
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from usercontainerd.cli import call, main, options
main.load_verb("run")
from usercontainerd.definition.specifiers import Owner
from usercontainerd.definition.toml_reader import parse_table
from usercontainerd.oci.digest import compute_digest
table = {"image": "docker.io/library/busybox", "command": ["true"], "remove": True, "ports": ["8080:80"]}
owner = Owner(home="/home/x", runtime_root="/run/user/1", user_name="x", uid=1)
definition, problems = parse_table("web", table, owner, "/")
assert definition is not None and not problems
compute_digest(b"{}")
print(*sys.modules)
"""


def test_run_imports_nothing_needless() -> None:
    command = [sys.executable, "-IS", "-c", PROGRAM, str(TOP)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & (NEEDLESS - _without_sha2())


def _without_sha2() -> set[str]:
    """Python 3.11 has no small hash."""
    return set() if sys.version_info >= (3, 12) else {"hashlib"}
