"""Which part of the journal, and docker's words for times."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.engine.containers.logs import LogRequest, parse_time, plan_log, render_timestamped

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("1690000000", "@1690000000"),
        ("1690000000.5", "@1690000000.5"),
        ("10m", "@1699999400.000000"),
        ("1h30m", "@1699994600.000000"),
        ("2023-11-14T22:13:20Z", "@1700000000.000000"),
        ("2023-11-14T23:13:20.5+01:00", "@1700000000.500000"),
        ("yesterday", "yesterday"),
        ("2023-11-14 22:13:20", "2023-11-14 22:13:20"),
        ("2023-99-99T", "2023-99-99T"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert parse_time(text, NOW) == expected


def test_a_created_container_has_no_log_from_before(tmp_path: Path) -> None:
    paths = Paths.from_environment({"HOME": str(tmp_path)}, 1000)
    os.makedirs(paths.created_definitions)
    path = f"{paths.created_definitions}/web.toml"
    Path(path).touch()
    os.utime(path, (5.25, 5.25))
    assert "--since=@5.250000" in plan_log(paths, "web", 1000, LogRequest(), NOW)
    assert "--since=@7" in plan_log(paths, "web", 1000, LogRequest(since="7"), NOW)
    other = plan_log(paths, "other", 1000, LogRequest(lines=3, follow=True, until="9"), NOW)
    assert not [word for word in other if word.startswith("--since")]
    assert {"--lines=3", "--follow", "--until=@9", "--output=cat"} <= set(other)
    assert "--output=json" in plan_log(paths, "web", 1000, LogRequest(timestamps=True), NOW)


def test_timestamps() -> None:
    def render(message: object) -> str:
        return render_timestamped(
            json.dumps({"__REALTIME_TIMESTAMP": "1700000000000042", "MESSAGE": message})
        )

    assert render("hello") == "2023-11-14T22:13:20.000042000Z hello\n"
    assert render("a\nb").count("2023-11-14T22:13:20.000042000Z ") == 2
    assert render([104, 105, 255]) == "2023-11-14T22:13:20.000042000Z hi\ufffd\n"
    assert render(None) == "2023-11-14T22:13:20.000042000Z \n"
