"""What the daemon tells the journal: messages with fields that one can search (systemd.journal-fields(7)).

``journalctl CONTAINER_NAME=app`` and, by USER_UNIT=, ``journalctl --user -u container@app`` show what it says of a
container. The names are those of docker's and Podman's drivers, and systemd's; ours begin with ``USERCONTAINER_``.
``systemd.journal`` is imported a moment after the first message, so that no caller waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from usercontainerd.base.errors import printable
from usercontainerd.base.names import unit_name
from usercontainerd.engine.containers.lookup import SHORT_ID, container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Fields = Mapping[str, str]
    Send = Callable[..., object]

IDENTIFIER = "usercontainerd"
DELAY = 1.0  # seconds from the first message to the import
MAX_TEXT = 16_000  # characters of one field
MAX_WAITING = 1000  # messages
NOTICE = 25  # between INFO and WARNING, as syslog has it

# MESSAGE_ID= of what somebody may want to find, see org.usercontainer1(5).
STARTED = "2841bdc4f8eb4de2a0a5e8dfb2548cf1"
JOB_BEGUN = "424a301b76b7404491be1b9312a9f446"
JOB_DONE = "26f2038412cf453286e84b2072bffb86"
JOB_FAILED = "a61c49d359f64e99b7c650481faf2203"
JOB_CANCELLED = "808da0d579f14aa9a3db7df7e9c9e0c0"
CALLER_REFUSED = "9c937dfc0efe4593a127b45c7e0291f2"
CHILD_CRASHED = "4617ce47d5a847918bc3fe5c83bf7351"
CONTAINER_ASKED = "9b691fd3937d4609af2bf0586663a218"

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (NOTICE, 5),
    (logging.INFO, 6),
)


def note(kind: str = "", **fields: str) -> dict[str, Any]:
    """The ``extra=`` of a logging call whose message has this MESSAGE_ID and these fields; empty ones are left out."""
    return {"journal": {name: value for name, value in {"MESSAGE_ID": kind, **fields}.items() if value}}


def describe_container(name: str) -> dict[str, str]:
    """The fields of a message about a container."""
    whole = container_id(name)
    return {
        "CONTAINER_NAME": name,
        "CONTAINER_ID": whole[:SHORT_ID],
        "CONTAINER_ID_FULL": whole,
        "USER_UNIT": unit_name(name),
    }


def rank_level(level: int) -> int:
    """syslog's priority of a level of ``logging``."""
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


def build_fields(record: logging.LogRecord) -> dict[str, str]:
    """All fields of a message. Parts of it come from clients and registries: no control character is left."""
    text = printable(record.getMessage())
    if record.exc_info and record.exc_info[0] is not None:
        trace = logging.Formatter().formatException(record.exc_info)
        text = "\n".join([text, *map(printable, trace.splitlines())])
    given: Fields = getattr(record, "journal", {})
    return {
        "MESSAGE": text[:MAX_TEXT],
        "PRIORITY": str(rank_level(record.levelno)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        **{name: printable(value)[:MAX_TEXT] for name, value in given.items()},
    }


class JournalHandler(logging.Handler):
    """Sends messages to the journal; the first ones wait until its module has been imported, for a second.

    ``load`` imports it. What is worse than a warning waits for nothing.
    """

    def __init__(self, load: Callable[[], Send]) -> None:
        super().__init__()
        self._load = load
        self._send: Send | None = None
        self._waiting: list[dict[str, str]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on somebody waits for the loop: import in its time."""
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Send a message, or have it sent soon."""
        try:
            self._waiting.append(build_fields(record))
            if (
                self._send is not None
                or self._loop is None
                or self._loop.is_closed()
                or record.levelno >= logging.ERROR
                or len(self._waiting) >= MAX_WAITING
            ):
                self.flush()
            elif not self._scheduled:
                self._scheduled = True
                self._loop.call_soon_threadsafe(self._loop.call_later, DELAY, self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Send what waits."""
        self.acquire()
        try:
            if self._waiting and self._send is None:
                self._send = self._load()
            waiting, self._waiting = self._waiting, []
            for fields in waiting:
                if self._send is not None:
                    line = int(fields.pop("CODE_LINE"))
                    self._send(fields.pop("MESSAGE"), CODE_LINE=line, **fields)
        finally:
            self.release()


class ErrorStreamHandler(logging.Handler):
    """Lines on standard error, where there is no journal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            write_lines(**build_fields(record))
        except Exception:
            self.handleError(record)


def write_lines(MESSAGE: str, *, PRIORITY: str, **_: str) -> None:  # noqa: N803 - the journal's names
    """Write a message to standard error: each line with its priority, sd-daemon(3), unless a person reads it there."""
    prefix = "" if os.isatty(sys.stderr.fileno()) else f"<{PRIORITY}>"
    sys.stderr.write("".join(f"{prefix}{line}\n" for line in MESSAGE.split("\n")))
    sys.stderr.flush()


def load_journal() -> Send:
    """Import the journal's module, of the package systemd-python; without it messages are lines."""
    try:
        from systemd import journal
    except ImportError:
        return write_lines
    send: Send = journal.send
    return send


def start_logging(environment: Mapping[str, str]) -> logging.Handler:
    """Log to the journal if our output goes there, else to standard error."""
    in_journal = bool(environment.get("JOURNAL_STREAM"))
    handler = JournalHandler(load_journal) if in_journal else ErrorStreamHandler()
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return handler
