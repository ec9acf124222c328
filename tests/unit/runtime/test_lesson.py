"""What a run that failed teaches about the output."""

from __future__ import annotations

import os
import time
from pathlib import Path

from usercontainerd.runtime.lesson import ASK, NONE, PIPE, ask_next_time, read_lesson, write_lesson

FAILED = {"SERVICE_RESULT": "exit-code", "INVOCATION_ID": "abc"}


def test_a_run_that_failed_soon_is_asked_about(tmp_path: Path) -> None:
    assert ask_next_time(str(tmp_path), FAILED, 1.5)
    kind, subject = read_lesson(str(tmp_path))
    since, _, invocation = subject.partition(" ")
    assert (kind, invocation) == (ASK, "abc")
    assert 1 < time.time() - float(since) < 60


def test_others_are_not(tmp_path: Path) -> None:
    assert not ask_next_time(str(tmp_path), {**FAILED, "SERVICE_RESULT": "success"}, 1)
    assert not ask_next_time(str(tmp_path), {"SERVICE_RESULT": "exit-code"}, 1)
    assert not ask_next_time(str(tmp_path), FAILED, 3600)
    assert os.listdir(tmp_path) == []
    assert not ask_next_time(str(tmp_path / "gone"), FAILED, 1) or read_lesson(str(tmp_path / "gone")) == (
        "",
        "",
    )


def test_not_again_for_an_hour(tmp_path: Path) -> None:
    write_lesson(str(tmp_path), NONE, "sha256:1")
    assert not ask_next_time(str(tmp_path), FAILED, 1)
    past = time.time() - 4000
    os.utime(tmp_path / "output-lesson", (past, past))
    assert ask_next_time(str(tmp_path), FAILED, 1)


def test_what_is_damaged_is_nothing(tmp_path: Path) -> None:
    write_lesson(str(tmp_path), PIPE, "sha256:1")
    assert read_lesson(str(tmp_path)) == (PIPE, "sha256:1")
    (tmp_path / "output-lesson").write_bytes(b"\xff\xfe")
    assert read_lesson(str(tmp_path)) == ("", "")
