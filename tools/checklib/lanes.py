"""The lanes: each runs a part of the tests somewhere, and says how many passed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
MACHINE = f"{TOP}/tools/machine"
TEST_LIMIT = 300  # seconds for one test here: a hang is a failure with a traceback
MACHINES = 2  # that share the native lane
LANE_LIMIT = 1800  # seconds for a whole lane in a machine, on a host with other work too
REPORT_MARK = "==report=="
GUEST_PYTEST = ["python3", "-m", "pytest", "-p", "no:cacheprovider", f"--timeout={TEST_LIMIT}"]


@dataclass(frozen=True)
class Outcome:
    """One lane's result. ``problem`` is set when the lane itself could not run: that is a failure, never a skip."""

    lane: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    problem: str | None = None

    @property
    def good(self) -> bool:
        """True if something ran and nothing failed."""
        return self.problem is None and self.failed == 0 and self.passed > 0


def run_lint(tools: str) -> Outcome:
    """Ruff (rules and format), mypy and reuse (every file has a licence); each counts as one test."""
    started = time.monotonic()
    commands = (
        [f"{tools}/ruff", "check", "."],
        [f"{tools}/ruff", "format", "--check", "."],
        [f"{tools}/mypy"],
        [f"{tools}/reuse", "lint", "--lines"],
    )
    failed = 0
    for command in commands:
        if subprocess.run(command, cwd=TOP, check=False).returncode != 0:
            failed += 1
            print(f"check: again with: {' '.join(command)}", flush=True)
    return Outcome("lint", len(commands) - failed, failed, 0, time.monotonic() - started)


def run_here(lane: str, tools: str, directory: str, arguments: list[str]) -> Outcome:
    """Run the tests of ``directory`` on this machine, in the environment of ``tools``."""
    report = f"{TOP}/.pytest_cache/{lane}.xml"
    os.makedirs(os.path.dirname(report), exist_ok=True)
    command = [
        f"{tools}/python3",
        "-m",
        "pytest",
        directory,
        f"--timeout={TEST_LIMIT}",
        f"--junitxml={report}",
        *arguments,
    ]
    started = time.monotonic()
    # A short name: tests have sockets in there. What tests leave in it goes with it.
    with tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as work:
        environment = {**os.environ, "TMPDIR": work}
        place = [f"--basetemp={work}/t"]
        status = subprocess.run([*command, *place], cwd=TOP, env=environment, check=False).returncode
    return _read_report(lane, report, status, time.monotonic() - started, command)


def run_in_session(lane: str, image: str | None) -> Outcome:
    """Run the demo in the session of the user that we are; it counts as one test."""
    command = [f"{TOP}/demo", "--session", *(["--image", image] if image else [])]
    started = time.monotonic()
    status = subprocess.run(command, cwd=TOP, check=False).returncode
    return Outcome(lane, int(status == 0), int(status != 0), 0, time.monotonic() - started)


def build_machine() -> None:
    """Build what machines of both lanes are made of, if it is not cached; what fails shows in the tests."""
    subprocess.run([sys.executable, MACHINE, "build", "--kernel"], cwd=TOP, check=False)


def run_in_machines(lane: str, options: list[str], directory: str, arguments: list[str]) -> Outcome:
    """Run the tests of ``directory`` in two machines at once, file by file in turn: most tests wait for something."""
    files = sorted(name for name in os.listdir(f"{TOP}/{directory}") if name.startswith("test_"))
    shares = [files[number::MACHINES] for number in range(MACHINES)]
    started = time.monotonic()
    with ThreadPoolExecutor(MACHINES) as pool:
        running = [
            pool.submit(
                run_in_machine,
                f"{lane}-{number}",
                options,
                [f"{directory}/{name}" for name in share],
                arguments,
                silent=number > 0,
            )
            for number, share in enumerate(shares)
        ]
        parts = [each.result() for each in running]
    problems = [part.problem for part in parts if part.problem]
    return Outcome(
        lane,
        sum(part.passed for part in parts),
        sum(part.failed for part in parts),
        sum(part.skipped for part in parts),
        time.monotonic() - started,
        "; ".join(problems) or None,
    )


def run_in_machine(
    lane: str,
    options: list[str],
    places: list[str],
    arguments: list[str],
    *,
    user: str = "alice",
    silent: bool = False,
) -> Outcome:
    """Run the tests in ``places`` as ``user`` in a private machine; its report comes back on standard output.

    ``silent`` holds back what it prints until its end, when another one is printing.
    """
    pytest = [
        *GUEST_PYTEST,
        *(f"/checkout/{place}" for place in places),
        "--rootdir=/checkout",
        "--junitxml=/tmp/report.xml",
        *arguments,
    ]
    script = f'"$@"; status=$?; echo "{REPORT_MARK}"; cat /tmp/report.xml 2>/dev/null; exit $status'
    command = [
        *(sys.executable, MACHINE, "run", "--user", user, "--timeout", str(LANE_LIMIT)),
        *options,
        *("--", "sh", "-c", script, "sh"),
        *pytest,
    ]
    started = time.monotonic()
    status, text = _run_and_part(command, silent=silent)
    report = f"{TOP}/.pytest_cache/{lane}.xml"
    os.makedirs(os.path.dirname(report), exist_ok=True)
    with open(report, "w", encoding="utf-8") as file:
        file.write(text)
    return _read_report(lane, report, status, time.monotonic() - started, command)


def _run_and_part(command: list[str], *, silent: bool) -> tuple[int, str]:
    """Run a command and print what it prints, up to the report; return its status and the report."""
    process = subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    lines: list[str] = []
    held: list[str] = []
    reporting = False
    for line in process.stdout:
        if line.startswith(REPORT_MARK):
            reporting = True
        elif reporting:
            lines.append(line)
        elif silent:
            held.append(line)
        else:
            print(line, end="", flush=True)
    status = process.wait()
    print("".join(held), end="", flush=True)
    return status, "".join(lines)


def _read_report(lane: str, path: str, status: int, seconds: float, command: list[str]) -> Outcome:
    try:
        suite = xml.etree.ElementTree.parse(path).getroot().find("testsuite")
        assert suite is not None
        counts = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    except (OSError, xml.etree.ElementTree.ParseError, AssertionError):
        return Outcome(lane, seconds=seconds, problem=f"ended with status {status} and left no report")
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    problem = None
    if status not in (0, 1, 5):
        problem = f"ended with status {status}"
    if failed or problem:
        print(f"check: again with: {' '.join(command)}", flush=True)
    return Outcome(lane, passed, failed, counts["skipped"], seconds, problem)
