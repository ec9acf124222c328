"""``./demo`` in a user's own session, as on a desktop: it tells its story and leaves nothing behind."""

import os
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_the_demo_in_a_session(tmp_path: Path) -> None:
    command = [str(TOP / "demo"), "--session", "--image", "localhost:5000/busybox:latest", "--port", "18099"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("It works", "NRestarts=1", "[Service]", "100000"):
        assert shown in done.stdout
    left = subprocess.run(
        [
            "systemctl",
            "--user",
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "container@usercontainerd-demo*",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert left.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
