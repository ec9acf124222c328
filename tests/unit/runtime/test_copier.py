"""The copier: when clean-up waits for it, and for how long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from usercontainerd.runtime import copier

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def start(bundle: Path) -> tuple[int, int, int]:
    """Return the write end of the copier's input, the read end of its output, and its process ID."""
    read_end, write_end = os.pipe()
    output_read, output_write = os.pipe()
    kept = os.dup(write_end)
    stdout = os.dup(1)
    os.dup2(output_write, 1)
    try:
        copier.start_copier(str(bundle), ENVIRONMENT, (read_end, write_end))
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(output_write)
    os.set_inheritable(kept, False)
    return kept, output_read, int((bundle / copier.PID_FILE).read_text())


def test_without_a_copier_nothing_waits(tmp_path: Path) -> None:
    assert not copier.finish_copier(str(tmp_path), {})


def test_it_stays_until_it_is_finished(tmp_path: Path) -> None:
    write_end, output, pid = start(tmp_path)
    os.write(write_end, b"last words\n")
    os.close(write_end)
    assert os.read(output, 100) == b"last words\n"
    time.sleep(0.1)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    assert copier.finish_copier(str(tmp_path), {})
    assert os.waitpid(pid, 0)[1] == 0
    os.close(output)
    assert os.listdir(tmp_path) == []


def test_who_keeps_the_pipe_open_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier, "PATIENCE", 0.2)
    write_end, output, pid = start(tmp_path)
    before = time.monotonic()
    assert copier.finish_copier(str(tmp_path), {})
    assert 0.2 <= time.monotonic() - before < 20
    os.close(write_end)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(output)


def test_a_copier_that_was_killed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "PATIENCE", 30.0)
    write_end, output, pid = start(tmp_path)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    before = time.monotonic()
    assert copier.finish_copier(str(tmp_path), {})
    assert time.monotonic() - before < 25
    os.close(write_end)
    os.close(output)


def test_what_an_interrupted_clean_up_left_does_no_harm(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / copier.FIFO)
    write_end, output, pid = start(tmp_path)
    os.close(write_end)
    assert copier.finish_copier(str(tmp_path), {})
    assert os.waitpid(pid, 0)[1] == 0
    os.close(output)
