#!/usr/bin/python3
"""Listing and removing images: our command and Podman's, side by side in one run.

Run it in a machine, as alice:

    tools/machine run --registry -- python3 /checkout/bench/images.py [--runs N] [--images N] [--markdown]

Both stores get the same images, of one layer each and all different. Each round does every contender once, in turn.
Figures are medians in milliseconds; what counts are the ratios, which the budgets name.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TOOLS = ("usercontainer", "podman")
VERBS = {
    "images": ("images",),
    "images NAME": ("images", "localhost/bench-0"),
    "images --filter": ("images", "--filter", "label=number=0"),
    "images --format json": ("images", "--format", "json"),
    "history": ("history", "localhost/bench-0"),
    "image exists": ("image", "exists", "localhost/bench-0"),
    "tag and rmi": ("tag", "localhost/bench-0", "localhost/other"),
}


def run(*command: str) -> float:
    """Run a command to its end and return its wall time in milliseconds."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = (time.perf_counter() - started) * 1000
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return elapsed


def write_archive(path: Path, count: int) -> None:
    """An archive of docker's with so many images."""
    manifest = []
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for number in range(count):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as layer:
                layer.addfile(tarfile.TarInfo(f"file{number}"))
            data = buffer.getvalue()
            digest = hashlib.sha256(data).hexdigest()
            configuration = {
                "architecture": "amd64",
                "os": "linux",
                "created": f"2026-01-{number % 28 + 1:02}T00:00:00Z",
                "config": {"Cmd": ["true"], "Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                "history": [{"created_by": f"step {number}"}],
            }
            text = json.dumps(configuration).encode()
            name = f"{hashlib.sha256(text).hexdigest()}.json"
            add(f"{digest}/layer.tar", data)
            add(name, text)
            manifest.append(
                {
                    "Config": name,
                    "RepoTags": [f"localhost/bench-{number}:latest"],
                    "Layers": [f"{digest}/layer.tar"],
                }
            )
        add("manifest.json", json.dumps(manifest).encode())


def measure(runs: int) -> dict[str, dict[str, float]]:
    """Medians of each verb, by tool."""
    taken: dict[str, dict[str, list[float]]] = {verb: {tool: [] for tool in TOOLS} for verb in VERBS}
    for _ in range(runs):
        for verb, words in VERBS.items():
            for tool in TOOLS:
                elapsed = run(tool, *words)
                if words[0] == "tag":
                    elapsed += run(tool, "rmi", "localhost/other")
                taken[verb][tool].append(elapsed)
    return {
        verb: {tool: statistics.median(times) for tool, times in by_tool.items()}
        for verb, by_tool in taken.items()
    }


def main() -> None:
    """Measure with one image and with many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--markdown", action="store_true", help="a table for docs/performance.md")
    arguments = parser.parse_args()
    separator = " | " if arguments.markdown else "  "
    if arguments.markdown:
        print("| verb | images | ours | Podman | ratio |\n|---|---|---|---|---|")
    for count in sorted({1, arguments.images}):
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "images.tar"
            write_archive(archive, count)
            for tool in TOOLS:
                run(tool, "load", "-q", "-i", str(archive))
        for verb, times in measure(arguments.runs).items():
            ours, theirs = (times[tool] for tool in TOOLS)
            cells = [f"{verb:<20}", f"{count:>4}", f"{ours:7.1f}", f"{theirs:7.1f}", f"{ours / theirs:5.2f}"]
            line = separator.join(cells)
            print(f"| {line} |" if arguments.markdown else line)
        for tool in TOOLS:
            run(tool, "rmi", "-a", "-f")


if __name__ == "__main__":
    main()
