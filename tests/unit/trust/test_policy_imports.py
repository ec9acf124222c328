"""What every pull imports to ask the policy: nothing that only signatures need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[3]


def test_a_policy_that_wants_no_signature_costs_little() -> None:
    module = "usercontainerd.engine.registries.admission"
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); import {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    modules = set(result.stdout.split())
    assert not modules & {
        "dataclasses",
        "subprocess",
        "tempfile",
        "base64",
        "requests",
        "cryptography",
        "ctypes",
    }
    trust = {name.rpartition(".")[2] for name in modules if name.startswith("usercontainerd.trust.")}
    assert trust == {"evaluation", "identity", "policy", "rejection", "scopes", "strictjson", "values"}
