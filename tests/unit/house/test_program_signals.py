"""Whenever a signal comes while one of our programs is being loaded, it ends without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
PROGRAMS = [*sorted(TOP.glob("libexec/*")), TOP / "bin/usercontainer"]
LOADED = 99
MOMENTS = (1, 2, 5, 12, 30, 80)  # imports, from the first of the program's own

# Runs a program as its first line does, sends a signal at one of its imports, and ends when it is loaded.
DRIVER = """\
import os, sys
program, number, moment = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv[:] = [program]
seen = 0
begun = False

def count(event, arguments):
    global seen
    if begun and event == "import" and arguments[0] != "_signal":
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), number)

def watch(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "main" and "/usercontainerd/" in frame.f_code.co_filename:
        os._exit(99)

with open(program, encoding="utf-8") as file:
    code = compile(file.read(), program, "exec")
sys.addaudithook(count)
sys.setprofile(watch)
begun = True
exec(code, {"__name__": "__main__", "__file__": program})
"""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_signal_while_loading(program: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    started = {
        (number, moment): subprocess.Popen(
            [sys.executable, "-IS", "-c", DRIVER, str(program), str(int(number)), str(moment)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in numbers
        for moment in MOMENTS
    }
    found = {
        key: (process.communicate(timeout=60)[1], process.returncode) for key, process in started.items()
    }
    for (number, moment), (errors, status) in found.items():
        assert errors == "", (number, moment)
        assert status in (-number, LOADED), (number, moment)
        assert status == -number or moment > 1, "nothing was imported"
