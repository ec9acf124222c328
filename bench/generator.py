#!/usr/bin/python3
"""The generator with 100 definitions, next to an interpreter that does nothing: with its cache, and without.

tools/machine run -- python3 /checkout/bench/generator.py [--runs N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

GENERATOR = "/usr/lib/systemd/user-generators/usercontainerd-generator"
DEFINITIONS = 100
DEFINITION = """\
description = "Web server {n}"
image = "quay.io/example/web:1.{n}"
command = ["httpd", "-f", "-p", "8080"]
ports = ["127.0.0.1:{port}:8080"]
mounts = ["/srv/www:/www:ro", "data-{n}:/var/lib/web"]
environment = {{ MODE = "production", WORKERS = "4" }}
restart = "on-failure"

[resources]
memory = "256M"
cpus = 0.5

[install]
wanted_by = ["default.target"]
"""


def run(command: list[str], environment: dict[str, str]) -> float:
    """Run a command to its end and return its wall time in milliseconds."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    timings: dict[str, list[float]] = {
        "python3 -IS -c pass": [],
        "generator, warm": [],
        "generator, cold": [],
    }
    with tempfile.TemporaryDirectory() as work:
        environment = {
            **os.environ,
            "XDG_CONFIG_HOME": f"{work}/config",
            "XDG_DATA_HOME": f"{work}/data",
            "XDG_CACHE_HOME": f"{work}/cache",
        }
        directory = Path(work) / "config/usercontainerd/containers"
        directory.mkdir(parents=True)
        for number in range(DEFINITIONS):
            text = DEFINITION.format(n=number, port=20000 + number)
            (directory / f"web{number}.toml").write_text(text, encoding="utf-8")

        def generate() -> float:
            shutil.rmtree(f"{work}/out", ignore_errors=True)
            places = [f"{work}/out/{place}" for place in ("normal", "early", "late")]
            for place in places:
                os.makedirs(place)
            elapsed = run([GENERATOR, *places], environment)
            units = len([name for name in os.listdir(places[0]) if name.endswith(".service")])
            assert units == DEFINITIONS, f"{units} units"
            return elapsed

        generate()
        for _ in range(runs):
            timings["python3 -IS -c pass"].append(run(["/usr/bin/python3", "-IS", "-c", "pass"], environment))
            timings["generator, warm"].append(generate())
            shutil.rmtree(f"{work}/cache")
            timings["generator, cold"].append(generate())
    print("| | min | median | max |\n|---|---|---|---|")
    for name, values in timings.items():
        print(f"| {name} | {min(values):.1f} | {statistics.median(values):.1f} | {max(values):.1f} |")
    interpreter = statistics.median(timings["python3 -IS -c pass"])
    budget = 2 * interpreter + 0.3 * DEFINITIONS
    warm = statistics.median(timings["generator, warm"])
    print(
        f"\nBudget: 2 interpreters and 0.3 ms for each definition = {budget:.1f} ms; measured, warm: {warm:.1f} ms"
    )


if __name__ == "__main__":
    main()
