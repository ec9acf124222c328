"""Questions to the person at the terminal: a line, a secret that is not shown, a choice by number."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.cli.output import write_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINE = 64 * 1024
MAX_TRIES = 3


def has_terminal() -> bool:
    """Tell whether somebody can be asked: standard input and output are a terminal, as podman decides it."""
    return os.isatty(0) and os.isatty(1)


def has_keyboard() -> bool:
    """Tell whether standard input is somebody at a terminal; where the output goes does not matter."""
    return os.isatty(0)


def ask_line(question: str) -> str:
    """Ask for one line. Raises ``InvalidArgument`` at the end of the input."""
    write_error(question)
    return read_line()


def ask_secret(question: str) -> str:
    """Ask for one line without showing what is typed; the terminal is as it was afterwards, also after Ctrl-C."""
    import termios

    before = termios.tcgetattr(0)
    silent = termios.tcgetattr(0)
    silent[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    try:
        # Not before: an answer that is quick would be shown, and then be thrown away.
        write_error(question)
        return read_line()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        write_error("\n")


def ask_choice(question: str, choices: Sequence[str]) -> int:
    """Let one of ``choices`` be chosen by its number; return its index. Raises ``InvalidArgument``."""
    lines = [f"  {number}) {printable(choice)}" for number, choice in enumerate(choices, 1)]
    write_error("\n".join([printable(question), *lines]) + "\n")
    for _ in range(MAX_TRIES):
        answer = ask_line(f"Number (1-{len(choices)}): ").strip()
        if answer.isascii() and answer.isdecimal() and 1 <= int(answer[:9]) <= len(choices):
            return int(answer) - 1
    raise InvalidArgument("none of the choices was taken")


def read_line(limit: int = MAX_LINE) -> str:
    """Read one line of standard input, byte by byte, so that what follows is left for others."""
    data = bytearray()
    while len(data) < limit:
        byte = os.read(0, 1)
        if not byte and not data:
            raise InvalidArgument("nothing was entered")
        if byte in (b"", b"\n"):
            break
        data += byte
    return data.decode("utf-8", "replace").rstrip("\r")
