"""What a pull shows: lines, events for programs, one line or bars on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
from collections.abc import Callable

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli import progress as module
from usercontainerd.cli.progress import Progress, read_format

BLOB = "sha256:" + "ab" * 32


def report(progress: Progress) -> None:
    progress("resolve", "localhost/app", 0, 0)
    for done in range(1001):
        progress("download", BLOB, done * 1000, 1_000_000)
    progress("unpack", BLOB, 0, 1_000_000)
    progress("unpack", BLOB, 1_000_000, 1_000_000)
    progress("done", "localhost/app", 1, 1)
    progress.finish()


def test_lines(capfd: pytest.CaptureFixture[str]) -> None:
    report(Progress("app", shown=True))
    assert capfd.readouterr().err == "Looking up localhost/app\nBlob abababababab: 1 MB\n"
    report(Progress("app", shown=False))
    assert capfd.readouterr().err == ""


def test_events(capfd: pytest.CaptureFixture[str]) -> None:
    report(Progress("app", shown=True, form="json"))
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert events[0] == {"phase": "resolve", "item": "localhost/app", "done": 0, "total": 0}
    downloads = [event["done"] for event in events if event["phase"] == "download"]
    assert downloads[0] == 0
    assert downloads[-1] == 1_000_000
    assert len(downloads) < 50  # of 1001
    assert [event["phase"] for event in events[-3:]] == ["unpack", "unpack", "done"]


def test_notices(capfd: pytest.CaptureFixture[str]) -> None:
    Progress("app", shown=True).notice("the mirror\x1b is gone")
    assert capfd.readouterr().err == "the mirror\\x1b is gone\n"
    Progress("app", shown=True, form="json").notice("the mirror\x1b is gone")
    assert json.loads(capfd.readouterr().err) == {"notice": "the mirror\x1b is gone"}
    Progress("app", shown=False).notice("the mirror is gone")
    assert capfd.readouterr().err == ""


def on_terminal(show: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``show`` writes to a terminal."""
    master, slave = pty.openpty()
    saved = os.dup(2)
    os.dup2(slave, 2)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    try:
        # rich writes to sys.stderr, which pytest has replaced.
        with open(2, "w", closefd=False, encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            show()
            stream.flush()
        text = b""
        while select.select([master], [], [], 0.2)[0]:
            text += os.read(master, 65536)
        return text.decode()
    finally:
        os.dup2(saved, 2)
        for fd in (saved, master, slave):
            os.close(fd)


def test_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_terminal(lambda: report(Progress("app", shown=True)), monkeypatch)
    assert "\n" not in text
    assert "app: done: 1 MB of 1 MB" in text
    assert text.endswith(" \r")
    assert "\n" in on_terminal(lambda: report(Progress("app", shown=True, form="plain")), monkeypatch)


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(module, "_BARS_AFTER", -1.0)
    text = on_terminal(lambda: report(Progress("app", shown=True)), monkeypatch)
    assert "abababababab" in text
    assert "download" in text
    assert "━" in text
    assert text.count("\x1b[?25h") >= text.count("\x1b[?25l") > 0  # the cursor is back


def test_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BARS_AFTER", -1.0)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    text = on_terminal(lambda: report(Progress("app", shown=True)), monkeypatch)
    assert "app: done: 1 MB of 1 MB" in text


def test_formats() -> None:
    assert read_format(None) == "auto"
    assert read_format("json") == "json"
    with pytest.raises(InvalidArgument, match="possible are auto, plain, json"):
        read_format("tty")
