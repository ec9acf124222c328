"""The command line of ``./check``."""

from __future__ import annotations

import argparse
import os
import signal
from concurrent.futures import ThreadPoolExecutor

from machinelib.recipe import SUITE, SUITE_VARIABLE, SUITES

from checklib.environment import ensure_environment
from checklib.lanes import (
    Outcome,
    build_machine,
    run_here,
    run_in_machine,
    run_in_machines,
    run_in_session,
    run_lint,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

LANES = {
    "lint": "ruff, mypy, and reuse for licences",
    "unit": "tests/unit, here",
    "machine": "tests/machine: the private machine itself, here, as root",
    "native": "tests/native, as alice in a machine of namespaces",
    "desktop": "tests/desktop, as alice in a machine with GTK, Xvfb and D-Bus clients",
    "rpm": "tests/rpm, as root in a machine with rpmbuild and dnf: packages built, installed, upgraded, removed",
    "kernel": "tests/kernel, as alice on a kernel of its own (user-mode Linux)",
    "selinux": "tests/selinux, as root on a kernel of its own that enforces Debian's SELinux policy",
    "session": "the main job in this very session, by ./demo --session",
}
# The private machine needs root to be built; an ordinary user has a session instead.
LANES_OF_ROOT = ("lint", "unit", "machine", "native", "desktop", "rpm", "kernel", "selinux")
LANES_OF_USER = ("lint", "unit", "session")
# What runs beside which others, all of which use one core at most; it is waited for before the next but these.
BESIDE = {"rpm": ("unit", "machine"), "selinux": ("kernel",)}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./check", description="Run linters and tests, with all their set-up."
    )
    for lane, text in LANES.items():
        parser.add_argument(f"--{lane}", action="append_const", const=lane, dest="lanes", help=text)
    parser.add_argument("--image", help="the session lane's image, one with busybox (see ./demo --help)")
    parser.add_argument(
        "--suite",
        choices=SUITES,
        default=SUITE,
        help="the Debian of the machines, in all lanes (default: %(default)s)",
    )
    parser.add_argument("-k", metavar="NAME", help="only tests whose names match (see pytest -k)")
    parser.add_argument("rest", nargs="*", metavar="ARG", help="further arguments for pytest, after --")
    return parser.parse_args(arguments)


def _run_lane(
    lane: str, tools: str, extra: list[str], options: argparse.Namespace, *, silent: bool
) -> Outcome:
    machine = ["--registry", "--suite", options.suite]
    if lane == "lint":
        return run_lint(tools)
    if lane == "unit":
        return run_here(lane, tools, "tests/unit", extra)
    if lane == "machine":
        # Here, where it may take its time and talk: tests compare what a machine prints.
        build_machine()
        return run_here(lane, tools, "tests/machine", extra)
    if lane == "native":
        return run_in_machines(lane, machine, "tests/native", extra)
    if lane == "desktop":
        return run_in_machine(lane, ["--desktop", *machine], ["tests/desktop"], extra)
    if lane == "rpm":
        # --bare: what is installed comes from the packages.
        machine = ["--rpm", "--bare", *machine]
        return run_in_machine(lane, machine, ["tests/rpm"], extra, user="root", silent=silent)
    if lane == "selinux":
        machine = ["--selinux", *machine]
        return run_in_machine(lane, machine, ["tests/selinux"], extra, user="root", silent=silent)
    if lane == "session":
        return run_in_session(lane, options.image)
    return run_in_machine(lane, ["--kernel", *machine], ["tests/kernel"], extra)


def main(arguments: list[str]) -> int:
    """Run the lanes and print the counts of each."""
    options = _parse(arguments)
    # A shell's background jobs ignore it, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    root = os.geteuid() == 0
    lanes = options.lanes or (LANES_OF_ROOT if root else LANES_OF_USER)
    if not root and not options.lanes:
        print("check: not root: no private machine; `sudo ./check --machine …` runs the rest")
    extra = [*(["-k", options.k] if options.k else []), *options.rest]
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    os.environ[SUITE_VARIABLE] = options.suite  # for tests that make machines themselves
    tools = ensure_environment() if set(lanes) & {"lint", "unit", "machine"} else ""
    chosen = [lane for lane in LANES if lane in lanes and not (options.k and lane in ("lint", "session"))]
    outcomes = _run_lanes(chosen, lambda lane, silent: _run_lane(lane, tools, extra, options, silent=silent))
    return _print_summary(outcomes, selected=bool(options.k))


def _run_lanes(lanes: list[str], run: Callable[[str, bool], Outcome]) -> list[Outcome]:
    """Run each lane, one after the other but for those that run aside; what came of them, in the same order.

    ``run`` gets a lane, and whether it is to print nothing before its end.
    """
    outcomes: dict[str, Outcome] = {}
    aside: dict[str, Future[Outcome]] = {}
    with ThreadPoolExecutor(1) as pool:
        for lane in lanes:
            for other in [other for other in aside if lane not in (other, *BESIDE[other])]:
                outcomes[other] = aside.pop(other).result()
            for other, neighbours in BESIDE.items():
                if lane in neighbours and other in lanes and other not in {*aside, *outcomes}:
                    print(f"== {other}: {LANES[other]}; beside the next, prints at its end", flush=True)
                    aside[other] = pool.submit(run, other, True)
            if lane not in {*aside, *outcomes}:
                print(f"== {lane}: {LANES[lane]}", flush=True)
                outcomes[lane] = run(lane, False)
        outcomes |= {other: future.result() for other, future in aside.items()}
    return [outcomes[lane] for lane in lanes]


def _print_summary(outcomes: list[Outcome], *, selected: bool) -> int:
    print()
    bad = False
    for outcome in outcomes:
        empty = selected and outcome.passed == 0 and outcome.failed == 0 and outcome.problem is None
        bad = bad or not (outcome.good or empty)
        text = (
            f"{outcome.lane:8} {outcome.passed:5} passed {outcome.failed:3} failed "
            f"{outcome.skipped:3} skipped {outcome.seconds:7.1f} s"
        )
        print(text + (f"   {outcome.problem}" if outcome.problem else ""))
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed + (outcome.problem is not None) for outcome in outcomes)
    print(f"{passed} passed, {failed} failed")
    return 1 if bad or passed == 0 else 0
