"""What a unit's status says of a pull."""

from __future__ import annotations

import os
import re

import pytest

from usercontainerd.base.errors import Cancelled
from usercontainerd.engine.containers import prepare_program
from usercontainerd.engine.containers.prepare_program import UnitProgress


def test_several_layers_never_go_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(_fd: int, data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(prepare_program, "INTERVAL", 0.0)
    progress = UnitProgress("web")
    for digest in ("sha256:a", "sha256:b"):
        progress("download", digest, 0, 1000)
    for done in range(0, 1001, 100):
        progress("download", "sha256:a", done, 1000)
        progress("download", "sha256:b", done // 2, 1000)
    # What an earlier pull had left of it was damaged: it comes anew.
    progress("download", "sha256:b", 0, 1000)
    progress("unpack", "sha256:a", 1000, 1000)
    texts = [re.search(rb"\): ([0-9.]+ k?B) of 2 kB", data) for data in written]
    shares = [match[1].decode() for match in texts if match]
    sizes = [float(text.split()[0]) * (1000 if "kB" in text else 1) for text in shares]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 1500
    assert all(b"EXTEND_TIMEOUT_USEC=" in data for data in written)


def test_a_signal_after_the_last_word_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit is stopped in the moment in which all is done."""

    def end_cancellation(_numbers: object) -> None:
        raise Cancelled("stopped")

    monkeypatch.setattr(prepare_program, "cancel_on", lambda *_: None)
    monkeypatch.setattr(prepare_program, "build_context", lambda *_: None)
    monkeypatch.setattr(prepare_program, "prepare_container", lambda *_, **__: None)
    monkeypatch.setattr(prepare_program, "end_cancellation", end_cancellation)
    assert prepare_program.main(["app"], {}, "/") == Cancelled.exit_status
