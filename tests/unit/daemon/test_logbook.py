"""Messages for the journal: fields, escapes, when its module is imported, and lines where there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from usercontainerd.daemon import logbook
from usercontainerd.daemon.logbook import (
    JOB_DONE,
    MAX_TEXT,
    ErrorStreamHandler,
    JournalHandler,
    build_fields,
    describe_container,
    note,
    start_logging,
)
from usercontainerd.engine.containers.lookup import container_id


class Journal:
    """Keeps what is sent, and how often it was imported."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.loads = 0

    def load(self) -> Any:
        self.loads += 1
        return self.send

    def send(self, message: str, **fields: Any) -> None:
        self.sent.append({"MESSAGE": message, **fields})


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("tests.logbook")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    yield made
    made.handlers.clear()


def make_record(text: str, *values: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord("x", level, "file.py", 7, text, values, None, "work", extra)


def test_fields() -> None:
    fields = build_fields(
        make_record("%s is done", "pull x", **note(JOB_DONE, IMAGE_NAME="x", USERCONTAINER_SENDER=""))
    )
    assert fields == {
        "MESSAGE": "pull x is done",
        "MESSAGE_ID": JOB_DONE,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "usercontainerd",
        "IMAGE_NAME": "x",
        "CODE_FILE": "file.py",
        "CODE_LINE": "7",
        "CODE_FUNC": "work",
    }
    assert describe_container("app") == {
        "CONTAINER_NAME": "app",
        "CONTAINER_ID": container_id("app")[:12],
        "CONTAINER_ID_FULL": container_id("app"),
        "USER_UNIT": "container@app.service",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, "7"),
        (logging.INFO, "6"),
        (logbook.NOTICE, "5"),
        (logging.WARNING, "4"),
        (logging.ERROR, "3"),
        (logging.CRITICAL, "2"),
    ],
)
def test_priorities(level: int, priority: str) -> None:
    assert build_fields(make_record("x", level=level))["PRIORITY"] == priority


def test_nothing_of_a_stranger_steers_a_terminal_or_is_endless() -> None:
    fields = build_fields(
        make_record("%s", "a\x1b[2J\nPRIORITY=0", **note("1" * 32, IMAGE_NAME="i\nPRIORITY=0" + "x" * 99999))
    )
    assert fields["MESSAGE"] == "a\\x1b[2J\\nPRIORITY=0"
    assert fields["IMAGE_NAME"].startswith("i\\nPRIORITY=0x")
    assert len(fields["IMAGE_NAME"]) == MAX_TEXT


def test_a_crash_has_its_trace(logger: logging.Logger) -> None:
    journal = Journal()
    logger.addHandler(JournalHandler(journal.load))
    try:
        raise ValueError("odd\x1b\nTraceback")
    except ValueError:
        logger.exception("it failed")
    (sent,) = journal.sent
    assert sent["MESSAGE"].startswith("it failed\nTraceback (most recent call last):\n")
    assert "\x1b" not in sent["MESSAGE"]


def test_the_journal_is_imported_when_nobody_waits(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "DELAY", 0.05)
    journal = Journal()

    async def main() -> None:
        handler = JournalHandler(journal.load)
        handler.use_loop(asyncio.get_running_loop())
        logger.addHandler(handler)
        logger.info("one")
        await asyncio.to_thread(logger.warning, "two")
        assert journal.loads == 0
        await asyncio.sleep(0.2)
        assert [each["MESSAGE"] for each in journal.sent] == ["one", "two"]
        logger.info("three")
        assert journal.sent[-1]["MESSAGE"] == "three"
        assert isinstance(journal.sent[-1]["CODE_LINE"], int)

    asyncio.run(main())
    logger.info("after the loop")
    assert journal.sent[-1]["MESSAGE"] == "after the loop"
    assert journal.loads == 1


def test_an_error_waits_for_nothing_and_the_end_leaves_nothing(logger: logging.Logger) -> None:
    journal = Journal()

    async def main() -> None:
        handler = JournalHandler(journal.load)
        handler.use_loop(asyncio.get_running_loop())
        logger.addHandler(handler)
        logger.info("one")
        logger.error("two")
        assert [each["MESSAGE"] for each in journal.sent] == ["one", "two"]

    asyncio.run(main())
    handler = JournalHandler(journal.load)
    handler.use_loop(asyncio.new_event_loop())
    handler.emit(make_record("last"))
    handler.flush()  # as logging does at the end of the program
    assert journal.sent[-1]["MESSAGE"] == "last"


def test_without_a_journal_it_is_lines(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    logger.addHandler(ErrorStreamHandler())
    logger.warning("one\ntwo")
    logger.info("three")
    assert capfd.readouterr().err == "<4>one\\ntwo\n<6>three\n"


def test_which_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    assert isinstance(start_logging({"JOURNAL_STREAM": "8:1"}), JournalHandler)
    assert isinstance(start_logging({}), ErrorStreamHandler)
