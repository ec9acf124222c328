"""Programs that look at a container from within: they run in ours and, for comparison, in Podman's.

The image needs no Python: the machine's own /usr is bound into the container, read-only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.support.containers import BUSYBOX, defined, run

PROBES = Path(__file__).parent.parent / "native/probes"
START = "import sys, importlib as i; sys.path[:0] = ['/']; i.import_module('probes.' + sys.argv[1]).main(*sys.argv[2:])"
PYTHON = ("/usr/bin/python3", "-ISB", "-c", START)


def list_mounts(output: Path) -> list[str]:
    """What a probe needs, as docker's -v has it; results are written to /out."""
    output.mkdir(exist_ok=True)
    output.chmod(0o777)
    libraries = [f"/usr/{name}:/{name}:ro" for name in ("lib", "lib64") if os.path.isdir(f"/usr/{name}")]
    return ["/usr:/usr:ro", *libraries, f"{PROBES}:/probes:ro", f"{output}:/out"]


def render_definition(command: list[str], mounts: list[str], toml: str = "", *, image: str = BUSYBOX) -> str:
    """A definition that runs ``command``; ``toml`` may have further keys, and tables at its end."""
    return (
        f"image = {json.dumps(image)}\ncommand = {json.dumps(command)}\nmounts = {json.dumps(mounts)}\n{toml}"
    )


def probe_ours(
    probe: str, *arguments: str, output: Path, toml: str = "", mounts: tuple[str, ...] = ()
) -> Any:
    """Run a probe in a container of ours; what it found."""
    command = [*PYTHON, probe, "/out/ours", *arguments]
    text = render_definition(command, [*list_mounts(output), *mounts], toml)
    with defined("probe", text) as container:
        container.start()
        log = container.finish(timeout=60)
    result = output / "ours"
    assert result.exists(), log
    return json.loads(result.read_text(encoding="utf-8"))


def probe_podman(
    probe: str, *arguments: str, output: Path, options: tuple[str, ...] = (), mounts: tuple[str, ...] = ()
) -> Any:
    """Run a probe in Podman's default container."""
    volumes = [word for mount in (*list_mounts(output), *mounts) for word in ("-v", mount)]
    command = [*PYTHON, probe, "/out/podman", *arguments]
    run("podman", "run", "--rm", *volumes, *options, BUSYBOX, *command, timeout=120)
    return json.loads((output / "podman").read_text(encoding="utf-8"))
