"""How a run's end is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.runtime.remains import record_exit
from usercontainerd.runtime.summary import (
    ExitRecord,
    Summary,
    describe_exit,
    parse_exit,
    read_exit,
    render_exit,
    render_summary,
)


@pytest.mark.parametrize(
    ("result", "code", "status", "said"),
    [
        ("success", "exited", "0", ""),
        ("success", "killed", "TERM", ""),
        ("exit-code", "exited", "7", "it ended with exit status 7"),
        ("signal", "killed", "KILL", "it was killed by signal 9"),
        ("core-dump", "dumped", "SEGV", "it was killed by signal 11"),
        ("oom-kill", "killed", "KILL", "it ran out of memory and was killed"),
        ("timeout", "killed", "KILL", "it took longer than its timeout"),
    ],
)
def test_an_end_in_words(result: str, code: str, status: str, said: str) -> None:
    environment = {"SERVICE_RESULT": result, "EXIT_CODE": code, "EXIT_STATUS": status}
    record = parse_exit(render_exit(environment, 1.0, 2.0))
    assert isinstance(record, ExitRecord)
    assert describe_exit(record) == said


def test_a_record_is_of_a_definition(tmp_path: Path) -> None:
    paths = Paths.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": f"{tmp_path}/run"}, 1000)
    definition = tmp_path / "app.toml"
    bundle, data = Path(paths.bundle("app")), Path(paths.container_data("app"))
    for directory in (bundle, data):
        directory.mkdir(parents=True)
    (bundle / "summary").write_text(render_summary(Summary(definition=str(definition))))
    environment = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "7"}
    definition.touch()
    record_exit(paths, "app", environment)
    assert read_exit(str(data)) is not None
    definition.unlink()
    record_exit(paths, "app", environment)
    assert read_exit(str(data)) is None
