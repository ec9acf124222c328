"""Reading a definition that is in order imports little: the generator reads all of them at every daemon-reload."""

from __future__ import annotations

import os
import subprocess
import sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
HEAVY = {
    "argparse", "difflib", "hashlib", "ipaddress", "json", "logging", "pathlib", "shlex", "shutil", "signal", "socket",
    "subprocess", "tempfile", "toml", "urllib",
    "usercontainerd.definition.lines", "usercontainerd.definition.suggestion",
}  # fmt: skip
PROGRAM = """
import sys
sys.path.insert(0, {top!r})
from usercontainerd.definition.search import find_definitions
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.specifiers import Owner
owner = Owner(home="/home/alice", runtime_root="/run/user/1000", user_name="alice", uid=1000)
for found in find_definitions([{top!r} + "/examples"]):
    if found.name != "job":  # whose command has quotes
        definition, diagnostics = load_definition(found, owner)
        assert definition is not None and not diagnostics, diagnostics
print(*sys.modules)
"""


def test_a_good_definition_imports_little() -> None:
    program = PROGRAM.format(top=TOP)
    result = subprocess.run(
        [sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) & HEAVY == set()
