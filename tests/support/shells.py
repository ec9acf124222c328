"""Interactive shells on a terminal of their own: keys go in, and what is seen comes out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path

# What a terminal does not show: CSI, OSC and DCS sequences, and single escapes (ECMA-48).
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]"
)
_ASKS_WHAT_IT_IS = re.compile(rb"\x1b\[0?c")  # primary device attributes: fish waits for the answer

# Quiet shells that read no files of the user's; the prompt tells that a line is over.
_PREPARATIONS = {
    "bash": (
        "bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'",
        "bind 'set completion-query-items 0'; bind 'set page-completions off'",
        "PS1='rea''dy> '",
    ),
    "zsh": (
        "unset zle_bracketed_paste; unsetopt beep prompt_sp; LISTMAX=9999; PS2=''",
        "fpath=(/usr/share/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u",
        "PS1='rea''dy> '",
    ),
    "fish": (
        "set -g fish_greeting; set -g fish_autosuggestion_enabled 0; function fish_right_prompt; end",
        "function fish_prompt; printf 'rea'; printf 'dy> '; end; function fish_title; end",
    ),
}
_COMMANDS = {
    "bash": ("bash", "--noprofile", "--norc", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "-i"),
}
PROMPT = "ready> "


class Shell:
    """A shell in ``directory``, its home, with ``path`` before its PATH."""

    def __init__(self, kind: str, directory: Path, path: Path, **environment: str) -> None:
        self.kind = kind
        self._seen = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
            mine = {
                **kept,
                "PATH": f"{path}:{os.environ['PATH']}",
                "TERM": "xterm",
                "HOME": str(directory),
                **environment,
            }
            os.execvpe(_COMMANDS[kind][0], _COMMANDS[kind], mine)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        for line in _PREPARATIONS[kind]:
            self.press(f"{line}\n")
        self.read_until(PROMPT)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._fd, keys.encode())

    def run(self, line: str, wanted: str = PROMPT, timeout: float = 60) -> str:
        """Type a line, and return what is seen until ``wanted``."""
        self.press(f"{line}\n")
        return self.read_until(wanted, timeout)

    def read_until(self, wanted: str, timeout: float = 60) -> str:
        """Return what is seen up to ``wanted``, without colours and the like; fail if it does not come."""
        end = time.monotonic() + timeout
        while wanted not in (shown := _CONTROL.sub("", self._seen)):
            if not select.select([self._fd], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"{self.kind}: no {wanted!r} in {shown!r}")
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                raise AssertionError(f"{self.kind} ended before {wanted!r}: {shown!r}") from None
            if _ASKS_WHAT_IT_IS.search(data):
                self.press("\x1b[?62c")
            self._seen += data.decode(errors="replace")
        head, _, self._seen = shown.partition(wanted)
        return head + wanted

    def forget_line(self) -> None:
        """Take back what is typed, once the shell has seen it all: not by a signal, which would overtake the keys."""
        self.press("\x15")  # Ctrl-U
        # fish may paint its prompt anew at any time: only a command's output tells that it has come so far.
        self.run("echo ov''er", "over")
        self.read_until(PROMPT)

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self.pid, 0)
