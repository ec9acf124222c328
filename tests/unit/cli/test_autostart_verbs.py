"""``enable``: what it says of when a container starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.cli import autostart
from usercontainerd.cli.autostart import ENABLE, run_enable
from usercontainerd.cli.call import Call
from usercontainerd.cli.options import parse_options

HINT = "loginctl enable-linger"


@pytest.mark.parametrize(
    ("words", "lingers", "status", "told"),
    [
        ((), False, 0, True),
        (("--target", "default.target"), False, 0, True),
        (("--target", "graphical-session.target"), False, 0, False),  # never at boot
        ((), True, 0, False),
        ((), False, 125, False),
    ],
)
def test_when_it_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    lingers: bool,
    status: int,
    told: bool,
) -> None:
    monkeypatch.setattr(autostart, "for_each", lambda *_: status)
    monkeypatch.setattr(autostart, "lingers", lambda _: lingers)
    monkeypatch.setattr(Call, "context", lambda *_: type("Context", (), {"user": "alice"}))
    call = Call("enable", parse_options(ENABLE, [*words, "app"]), {"HOME": str(tmp_path)})
    assert run_enable(call) == status
    assert (HINT in capfd.readouterr().err) == told
