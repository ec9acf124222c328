"""A screen that nobody sees, an application on it, and the accessibility tree as what a user sees of it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import run, wait_until

PANEL = Path(__file__).parents[2] / "examples/container-panel.py"
PANEL_NAME = "org.example.ContainerPanel"
SIZE = (560, 520)
BORDER = 5  # of a window where no compositor draws its shadow
PATIENCE = 60.0
SWITCHES = ("check box", "switch", "toggle button")  # what versions of GTK call them


class Display:
    """An X server; what it shows lies in a file, in the format of xwd(1)."""

    def __init__(self, directory: Path) -> None:
        reader, writer = os.pipe()
        screen = f"{SIZE[0]}x{SIZE[1]}x24"
        self._process = subprocess.Popen(
            [
                *("Xvfb", "-displayfd", str(writer), "-screen", "0", screen),
                *("-nolisten", "tcp", "-noreset", "-fbdir", str(directory)),
            ],
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self.name = f":{int(pipe.readline())}"
        self._file = directory / "Xvfb_screen0"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def save_picture(self, path: Path) -> None:
        """Write what is shown as a PNG."""
        path.write_bytes(encode_png(*decode_xwd(self._file.read_bytes())))


def decode_xwd(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and the rows of a picture of 32 bits a pixel as RGB, without the window's border."""
    header = struct.unpack(">25I", data[:100])
    size, width, height, stride, colours = (header[index] for index in (0, 4, 5, 12, 19))
    start = size + 12 * colours
    rows = []
    for number in range(BORDER, height - BORDER):
        offset = start + number * stride
        line = data[offset + 4 * BORDER : offset + 4 * (width - BORDER)]
        row = bytearray(len(line) // 4 * 3)
        row[0::3], row[1::3], row[2::3] = line[2::4], line[1::4], line[0::4]
        rows.append(bytes(row))
    return width - 2 * BORDER, height - 2 * BORDER, rows


def encode_png(width: int, height: int, rows: list[bytes]) -> bytes:
    """A PNG of 8 bits a channel (PNG specification, sections 5 and 9); each row as what differs from the one above."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    above, filtered = bytes(3 * width), bytearray()
    for row in rows:
        filtered += b"\2" + bytes((one - other) & 0xFF for one, other in zip(row, above, strict=True))
        above = row
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(filtered), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class Panel:
    """The example application, running."""

    def __init__(self, display: Display) -> None:
        self.display = display
        environment = {
            **os.environ,
            "DISPLAY": display.name,
            "GDK_BACKEND": "x11",
            "GSK_RENDERER": "cairo",
            "G_DEBUG": "fatal-criticals",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PANEL)], env=environment, stderr=subprocess.PIPE, text=True
        )

    def close(self) -> str:
        """End it; what it complained of."""
        self.process.terminate()
        return self.process.communicate(timeout=60)[1]

    def activate(self, action: str, *arguments: str) -> None:
        """Activate an action of the application, as its buttons do."""
        run("gapplication", "action", PANEL_NAME, action, *(f"'{each}'" for each in arguments))

    def texts(self) -> list[str]:
        """All that can be read in the window now."""
        return [text for node in self._walk() for text in read_node(node)]

    def shows(self, *parts: str) -> bool:
        """Whether there are texts that contain these."""
        texts = self.texts()
        return all(any(part in text for text in texts) for part in parts)

    def wait_for(self, *parts: str) -> None:
        """Wait until all of these can be read."""
        try:
            wait_until(lambda: self.shows(*parts), f"{parts}", PATIENCE)
        except pytest.fail.Exception:
            pytest.fail(f"the window does not show {parts} but {self.texts()}")

    def wait_without(self, part: str) -> None:
        """Wait until this can be read no more."""
        wait_until(lambda: not self.shows(part), f"{part} goes from {self.texts()}", PATIENCE)

    def is_on(self, name: str) -> bool:
        """Whether the switch of this name is on."""
        from gi.repository import Atspi

        states = self._find_switch(name).get_state_set()
        return any(states.contains(each) for each in (Atspi.StateType.CHECKED, Atspi.StateType.PRESSED))

    def toggle(self, name: str) -> None:
        """Move the switch of this name."""
        from gi.repository import Atspi

        assert Atspi.Action.do_action(self._find_switch(name).get_action_iface(), 0)

    def _find_switch(self, name: str) -> Any:
        nodes = list(self._walk())
        for node in nodes:
            if node.get_role_name() in SWITCHES and node.get_name() == name:
                return node
        roles = [(node.get_role_name(), node.get_name()) for node in nodes]
        pytest.fail(f"there is no switch {name!r}: {roles}")

    def press(self, name: str, row: str = "") -> None:
        """Press the button of this name, in the row that has this text."""
        from gi.repository import Atspi

        for node in self._walk():
            place = not row or (
                node.get_role_name() == "list item" and any(row in text for text in collect(node))
            )
            for child in walk(node) if place else ():
                if child.get_role_name() == "button" and child.get_name() == name:
                    assert Atspi.Action.do_action(child.get_action_iface(), 0)
                    return
        pytest.fail(f"there is no button {name!r} in a row {row!r}: {self.texts()}")

    def _walk(self) -> Iterator[Any]:
        for application in walk_applications():
            if application.get_process_id() == self.process.pid:
                yield from walk(application)


def walk_applications() -> Iterator[Any]:
    import gi

    gi.require_version("Atspi", "2.0")
    from gi.repository import Atspi

    desktop = Atspi.get_desktop(0)
    desktop.clear_cache()
    for index in range(desktop.get_child_count()):
        child = desktop.get_child_at_index(index)
        if child is not None:
            yield child


def walk(node: Any) -> Iterator[Any]:
    """A node of the accessibility tree and what is shown below it; what vanishes meanwhile is passed over."""
    from gi.repository import Atspi, GLib

    try:
        node.clear_cache_single()
        states = node.get_state_set()
        shown = states.contains(Atspi.StateType.SHOWING) or node.get_role() == Atspi.Role.APPLICATION
        if not shown:
            return
        yield node
        children = [node.get_child_at_index(index) for index in range(node.get_child_count())]
    except GLib.Error:
        return
    for child in children:
        if child is not None:
            yield from walk(child)


def read_node(node: Any) -> list[str]:
    """The name of a node and the text in it."""
    from gi.repository import Atspi, GLib

    try:
        found = [node.get_name() or ""]
        if (text := node.get_text_iface()) is not None:
            found.append(Atspi.Text.get_text(text, 0, Atspi.Text.get_character_count(text)))
    except GLib.Error:
        return []
    return [each for each in found if each]


def collect(node: Any) -> list[str]:
    """All that can be read in a node and below it."""
    return [text for each in walk(node) for text in read_node(each)]


@pytest.fixture(scope="session")
def display(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Display]:
    made = Display(tmp_path_factory.mktemp("display"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def take_picture(display: Display) -> Callable[[str], None]:
    """Keep what the screen shows, in the directory of the environment's PICTURES; without it nothing is kept."""

    def take(name: str) -> None:
        target = os.environ.get("PICTURES")
        if target:
            display.save_picture(Path(target) / f"{name}.png")

    return take
