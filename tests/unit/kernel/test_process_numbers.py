"""Numbers of processes that are held by a descriptor."""

from __future__ import annotations

import os
import subprocess
import sys

from usercontainerd.kernel.signals import find_process_number


def test_a_process_has_its_number_until_it_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE)
    fd = os.pidfd_open(process.pid)
    try:
        assert find_process_number(fd) == process.pid
        process.communicate(b"\n")
        assert find_process_number(fd) <= 0
    finally:
        os.close(fd)


def test_what_is_no_process() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        assert find_process_number(fd) == 0
    finally:
        os.close(fd)
