"""The transient unit in which a start is prepared, with a program in systemd-run's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.runtime import preparing
from usercontainerd.runtime.preparing import run_prepare

INHERITED = {
    "HOME": "/home/alice",
    "PATH": "/usr/bin:/bin",
    "NOTIFY_SOCKET": "/run/user/1000/systemd/notify",
    "INVOCATION_ID": "0123",
    "LISTEN_FDS": "1",
}


def test_what_is_the_units_own_is_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd-run with the container's NOTIFY_SOCKET says READY=1 there, when its own unit has started."""
    program = tmp_path / "systemd-run"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nenv > {tmp_path}/environment\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(preparing, "SYSTEMD_RUN", str(program))
    assert run_prepare("container@app.service", "app", "/prepare", INHERITED, lambda _message: None) == 0
    environment = (tmp_path / "environment").read_text().splitlines()
    assert "HOME=/home/alice" in environment
    assert not [
        line for line in environment if line.startswith(("NOTIFY_SOCKET", "INVOCATION_ID", "LISTEN_"))
    ]
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert [line for line in arguments if line.startswith("--setenv=")] == ["--setenv=HOME", "--setenv=PATH"]
    assert arguments[-3:] == ["/prepare", "app", "/run/user/1000/systemd/notify"]
