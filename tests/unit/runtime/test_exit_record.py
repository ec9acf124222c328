"""How a run's end is told."""

from __future__ import annotations

import pytest

from usercontainerd.runtime.summary import ExitRecord, describe_exit, parse_exit, render_exit


@pytest.mark.parametrize(
    ("result", "code", "status", "said"),
    [
        ("success", "exited", "0", ""),
        ("success", "killed", "TERM", ""),
        ("exit-code", "exited", "7", "it ended with exit status 7"),
        ("signal", "killed", "KILL", "it was killed by signal 9"),
        ("core-dump", "dumped", "SEGV", "it was killed by signal 11"),
        ("oom-kill", "killed", "KILL", "it ran out of memory and was killed"),
        ("timeout", "killed", "KILL", "it took longer than its timeout"),
    ],
)
def test_an_end_in_words(result: str, code: str, status: str, said: str) -> None:
    environment = {"SERVICE_RESULT": result, "EXIT_CODE": code, "EXIT_STATUS": status}
    record = parse_exit(render_exit(environment, 1.0, 2.0))
    assert isinstance(record, ExitRecord)
    assert describe_exit(record) == said
