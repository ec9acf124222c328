"""How far a pull, load, save or push is, on standard error.

On a terminal a bar for each layer, where ``rich`` is installed and there is something to see: its import takes longer
than a small image. Without it, one line that is written anew. Elsewhere a line for each thing that begins; or one JSON
object a line, for programs::

    {"phase": "download", "item": "sha256:…", "done": 1048576, "total": 4194304}
    {"notice": "The mirror … is passed over: …"}
"""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.base.sizes import format_size
from usercontainerd.cli.options import Option
from usercontainerd.cli.output import truncate, write_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMATS = ("auto", "plain", "json")
PROGRESS = Option(
    "--progress FORMAT", "auto (default), plain: a line for each layer, json: for programs", FORMATS
)
_INTERVAL = 0.1  # seconds between two updates of the same thing
_BARS_AFTER = 0.7  # seconds; what is done earlier is not worth them
_MAX_BARS = 16  # beyond, those that are full make room
_SAID = ("resolve", "wait", "download", "exists", "present", "mount", "compress", "upload", "read", "save")


class Progress:
    """Takes the reports of the engine about ``image``; ``form`` is one of ``--progress``."""

    def __init__(self, image: str, *, shown: bool, form: str = "auto") -> None:
        self.image = image
        self.shown = shown
        self.terminal = shown and form == "auto" and os.isatty(2)
        self._json = shown and form == "json"
        self._bytes: dict[str, tuple[int, int]] = {}
        self._said: set[tuple[str, str]] = set()
        self._events: dict[str, tuple[str, float]] = {}
        self._bars: Bars | None = None
        self._began = time.monotonic()
        self._last = 0.0
        self._width = 0

    def __call__(self, phase: str, item: str, done: int, total: int, /) -> None:
        """Take one report of the engine."""
        if not self.shown:
            return
        if self._json:
            self._write_event(phase, item, done, total)
            return
        if total > 1 and item.startswith("sha"):
            self._bytes[item] = (done, total)
        if self.terminal:
            self._draw(phase, item)
        elif (phase, item) not in self._said and phase in _SAID:
            self._said.add((phase, item))
            write_error(f"{describe_step(phase, item, total)}\n")

    def _write_event(self, phase: str, item: str, done: int, total: int) -> None:
        """Every change of phase, and the end of each; in between no more than a few a second."""
        now = time.monotonic()
        last, when = self._events.get(item, ("", 0.0))
        if phase == last and now - when < _INTERVAL and (done < total or not total):
            return
        self._events[item] = (phase, now)
        import json

        event = {"phase": str(phase), "item": item, "done": done, "total": total}
        write_error(json.dumps(event) + "\n")

    def _draw(self, phase: str, item: str) -> None:
        now = time.monotonic()
        if self._bars is None and now - self._began > _BARS_AFTER and phase in ("download", "save"):
            self._begin_bars()
        if self._bars is not None:
            self._bars.update(phase, item, *self._bytes.get(item, (0, 0)))
        if now - self._last < _INTERVAL and phase != "done":
            return
        self._last = now
        if self._bars is not None:
            self._bars.refresh()
            return
        done = sum(each for each, _ in self._bytes.values())
        total = sum(each for _, each in self._bytes.values())
        share = f": {format_size(done)} of {format_size(total)}" if total else ""
        text = truncate(f"{self.image}: {phase}{share}", 79)
        write_error(f"\r{text.ljust(self._width)}")
        self._width = len(text)

    def _begin_bars(self) -> None:
        self._began = float("inf")  # tried once
        if os.environ.get("TERM", "dumb") == "dumb":
            return
        try:
            bars = Bars()
        except ImportError:
            return
        self._clear_line()
        self._bars = bars
        for item, (done, total) in self._bytes.items():
            bars.update("download", item, done, total)

    def _clear_line(self) -> None:
        if self._width:
            write_error(f"\r{' ' * self._width}\r")
            self._width = 0

    def notice(self, text: str) -> None:
        """Say something beside the display, in one line; to programs as ``{"notice": "…"}``."""
        if self._json:
            import json

            write_error(json.dumps({"notice": text}) + "\n")
        elif self.shown:
            self.finish()
            write_error(f"{printable(text)}\n")

    def finish(self) -> None:
        """Take the display away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        elif self.terminal:
            self._clear_line()


class Bars:
    """A bar for each layer, by ``rich``. Raises ``ImportError`` where that is not installed."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._display: Any = RichProgress(
            # No markup: a registry's address may have brackets.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[phase]}", markup=False),
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,  # no thread of its own
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._display.start()

    def update(self, phase: str, item: str, done: int, total: int) -> None:
        """Note how far one layer is; nothing is drawn."""
        if not item.startswith("sha") or not total:
            return
        word = "done" if phase == "unpack" and done >= total else str(phase)
        if item not in self._tasks:
            short = item.rpartition(":")[2][:12]
            self._tasks[item] = self._display.add_task(short, total=total, phase=word)
        visible = word != "done" or len(self._tasks) <= _MAX_BARS
        self._display.update(self._tasks[item], completed=done, phase=word, visible=visible)

    def refresh(self) -> None:
        """Draw."""
        self._display.refresh()

    def stop(self) -> None:
        """Take the bars away."""
        self._display.stop()


def describe_step(phase: str, item: str, total: int) -> str:
    """One line for something that begins. Pure."""
    short = item.rpartition(":")[2][:12] if item.startswith("sha") else item
    return {
        "resolve": f"Looking up {short}",
        "wait": f"Layer {short}: waiting for another pull of it",
        "exists": f"Layer {short}: here already",
        "present": f"Blob {short}: the registry has it",
        "mount": f"Blob {short}: taken from another repository",
        "compress": f"Layer {short}: being compressed",
        "read": f"Reading {item}",
    }.get(phase, f"Blob {short}: {format_size(total)}" if total else f"Blob {short}")


def read_format(text: str | None) -> str:
    """``--progress``. Raises ``InvalidArgument``."""
    if text is not None and text not in FORMATS:
        raise InvalidArgument(f'"{text}" is no form of progress', hint=f"possible are {', '.join(FORMATS)}")
    return text or "auto"
