#!/usr/bin/python3
"""Starting, stopping, exec, run and listing: a plain unit, our containers and Podman's, side by side in one run.

Run it in a machine, as alice:

    tools/machine run --registry -- python3 /checkout/bench/services.py [--runs N] [--only services|commands]

Each round does every contender once, in turn, so that a machine whose speed drifts treats all alike. Figures are
medians in milliseconds; what counts are the ratios, which the budgets name.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

IMAGE = "localhost:5000/busybox:latest"
COMMAND = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"

Timings = dict[str, list[float]]


def run(*command: str) -> float:
    """Run a command to its end and return its wall time in milliseconds."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = (time.perf_counter() - started) * 1000
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return elapsed


def write_units() -> dict[str, str]:
    """Write all contenders' files; return name to unit."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    ours, quadlet, plain = (
        config / part for part in ("usercontainerd/containers", "containers/systemd", "systemd/user")
    )
    for directory in (ours, quadlet, plain):
        directory.mkdir(parents=True, exist_ok=True)
    (plain / "bench-plain.service").write_text(
        f'[Service]\nType=exec\nExecStart=/bin/sh -c "{COMMAND}"\n'.replace("$!", "$$!"), encoding="utf-8"
    )
    for network in ("none", "pasta"):
        (ours / f"bench-{network}.toml").write_text(
            f'image = "{IMAGE}"\ncommand = ["sh", "-c", "{COMMAND}"]\nnetwork = "{network}"\n',
            encoding="utf-8",
        )
        (quadlet / f"bench-quadlet-{network}.container").write_text(
            # Without the last section Quadlet waits for network-online.target of the system, up to 90 s.
            f'[Container]\nImage={IMAGE}\nExec=sh -c "{COMMAND}"\nNetwork={network}\n'.replace("$!", "$$!")
            + "[Quadlet]\nDefaultDependencies=false\n",
            encoding="utf-8",
        )
    run("systemctl", "--user", "daemon-reload")
    return {
        "plain unit": "bench-plain.service",
        "ours, no network": "container@bench-none.service",
        "ours, pasta": "container@bench-pasta.service",
        "Quadlet, no network": "bench-quadlet-none.service",
        "Quadlet, pasta": "bench-quadlet-pasta.service",
    }


def time_services(units: dict[str, str], runs: int) -> tuple[Timings, Timings]:
    """Start and stop each unit in turn; the first round warms up and is not counted."""
    starts: Timings = {name: [] for name in units}
    stops: Timings = {name: [] for name in units}
    for number in range(runs + 1):
        for name, unit in units.items():
            started = run("systemctl", "--user", "start", unit)
            time.sleep(0.2)
            stopped = run("systemctl", "--user", "stop", unit)
            time.sleep(0.1)
            run("systemctl", "--user", "reset-failed")
            if number:
                starts[name].append(started)
                stops[name].append(stopped)
    return starts, stops


def time_commands(runs: int) -> Timings:
    """Exec into a running container, and list containers and images, in turn."""
    commands: dict[str, Callable[[], float]] = {
        "usercontainer exec": lambda: run("usercontainer", "exec", "bench-none", "true"),
        "podman exec": lambda: run("podman", "exec", "bench-podman", "true"),
        "usercontainer run": lambda: run("usercontainer", "run", "--rm", "--network", "none", IMAGE, "true"),
        "podman run": lambda: run("podman", "run", "--rm", "--network", "none", IMAGE, "true"),
        "usercontainer ps": lambda: run("usercontainer", "ps"),
        "podman ps": lambda: run("podman", "ps"),
        "usercontainer images": lambda: run("usercontainer", "images"),
        "podman images": lambda: run("podman", "images"),
        "usercontainer pull, nothing to do": lambda: run("usercontainer", "pull", IMAGE),
        "podman pull, nothing to do": lambda: run("podman", "pull", "-q", IMAGE),
    }
    run("systemctl", "--user", "start", "container@bench-none.service")
    run(
        "podman",
        "run",
        "-d",
        "--rm",
        "--name",
        "bench-podman",
        "--network",
        "none",
        IMAGE,
        "sh",
        "-c",
        COMMAND,
    )
    timings: Timings = {name: [] for name in commands}
    try:
        for number in range(runs + 1):
            for name, command in commands.items():
                elapsed = command()
                if number:
                    timings[name].append(elapsed)
    finally:
        run("podman", "rm", "-f", "-t", "0", "bench-podman")
        run("systemctl", "--user", "stop", "container@bench-none.service")
    return timings


def print_table(title: str, timings: Timings, comparisons: list[tuple[str, str, float]]) -> None:
    """Print medians, and each budget with the ratio that was measured."""
    print(f"\n### {title}\n\n| | min | median | max |\n|---|---|---|---|")
    for name, values in timings.items():
        print(f"| {name} | {min(values):.1f} | {statistics.median(values):.1f} | {max(values):.1f} |")
    print("\n| ratio | measured | at most |\n|---|---|---|")
    for one, other, budget in comparisons:
        ratio = statistics.median(timings[one]) / statistics.median(timings[other])
        print(f"| {one} / {other} | {ratio:.2f} | {budget} |")


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--only", choices=("services", "commands"))
    options = parser.parse_args()
    run("podman", "pull", "-q", IMAGE)
    units = write_units()
    if options.only != "commands":
        starts, stops = time_services(units, options.runs)
        plain, quiet, pasta = "plain unit", "ours, no network", "ours, pasta"
        print_table(
            "`systemctl --user start` (ms)",
            starts,
            [
                (quiet, plain, 1.6),
                (quiet, "Quadlet, no network", 0.5),
                (pasta, "Quadlet, pasta", 0.7),
            ],
        )
        print_table(
            "`systemctl --user stop` (ms)",
            stops,
            [(quiet, "Quadlet, no network", 0.3), (pasta, "Quadlet, pasta", 0.3)],
        )
    if options.only != "services":
        timings = time_commands(options.runs)
        print_table(
            "commands (ms)",
            timings,
            [
                ("usercontainer exec", "podman exec", 0.4),
                ("usercontainer run", "podman run", 1.0),
                ("usercontainer ps", "podman ps", 0.8),
                ("usercontainer images", "podman images", 0.8),
                ("usercontainer pull, nothing to do", "podman pull, nothing to do", 1.0),
            ],
        )


if __name__ == "__main__":
    main()
