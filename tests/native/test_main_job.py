"""The main job: ``systemctl --user start container@NAME``, and all that systemd then does for a service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support.containers import BUSYBOX, Container, fetch, run, run_all, wait_until
from tests.support.ports import find_port

Make = Callable[..., Container]

WEB = "localhost:5000/web:latest"
SLEEP = f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nstop_timeout = 0\n'


def shell(script: str, more: str = 'network = "none"\n') -> str:
    return f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", {json.dumps(script)}]\n{more}'


def list_processes(group: Path) -> dict[int, str]:
    """All processes of a cgroup and those below it, with their names."""
    found = {}
    for file in group.rglob("cgroup.procs"):
        for line in file.read_text().split():
            try:
                found[int(line)] = Path(f"/proc/{line}/comm").read_text().strip()
            except FileNotFoundError:
                continue
    return found


def is_restarted(one: Container, times: str) -> bool:
    return one.show("NRestarts") == times and one.show("ActiveState") == "active"


def test_init_is_the_main_process(container: Make) -> None:
    port = find_port()
    web = container(f'image = "{WEB}"\nports = ["127.0.0.1:{port}:8080"]\noutput = "journal"\n')
    web.start()
    assert "It works" in fetch(port)
    pid = web.pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["NSpid"].split()[-1] == "1"
    assert Path(f"/proc/{status['PPid']}/comm").read_text() == "systemd\n"
    maps = [line.split() for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()]
    assert maps[0] == ["0", str(os.getuid()), "1"]
    assert maps[1][0] == "1"
    # The web server's own, and pasta; nobody who watches over them.
    names = list_processes(web.cgroup)
    assert names[pid] == "serve"
    assert set(names.values()) <= {"serve", "httpd", "busybox", "pasta", "pasta.avx2"}


def test_unit_has_one_cgroup_below_it(container: Make) -> None:
    one = container(SLEEP)
    one.start()
    assert [path.name for path in one.cgroup.iterdir() if path.is_dir()] == ["container"]
    assert one.cgroup.parent.name == "container.slice"
    assert (one.cgroup / "cgroup.procs").read_text() == ""
    assert (one.cgroup / "container/cgroup.procs").read_text().split() == [str(one.pid)]


def test_killed_init_is_started_again(container: Make) -> None:
    port = find_port()
    web = container(f'image = "{WEB}"\nports = ["127.0.0.1:{port}:8080"]\nrestart = "on-failure"\n')
    web.start()
    fetch(port)
    first = web.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: is_restarted(web, "1"), "it restarts")
    assert web.pid not in (0, first)
    assert "It works" in fetch(port)


def test_a_systemd_that_knows_no_subgroup(container: Make) -> None:
    """The launcher goes there itself, first and again, and nothing of the cgroups stays."""
    one = container(shell("exec sleep 1000", 'network = "none"\nstop_timeout = 1\nrestart = "on-failure"\n'))
    one.forget_subgroup()
    one.start()
    for turn in ("1", "2"):
        assert list_processes(one.cgroup / "container") == list_processes(one.cgroup)
        assert list_processes(one.cgroup)[one.pid] == "sleep"
        assert run("usercontainer", "exec", one.name, "echo", "here").stdout == "here\n"
        os.kill(one.pid, signal.SIGKILL)
        wait_until(partial(is_restarted, one, turn), "it restarts")
    group = one.cgroup
    one.stop()
    assert not group.exists()


def test_exit_status_is_the_units(container: Make) -> None:
    one = container(shell("exit 7"))
    one.start()
    one.finish()
    assert (one.show("ExecMainStatus"), one.show("Result")) == ("7", "exit-code")


def test_clean_end(container: Make) -> None:
    one = container(shell("exit 0"))
    one.start()
    one.finish()
    assert (one.show("ActiveState"), one.show("Result"), one.show("ExecMainStatus")) == (
        "inactive",
        "success",
        "0",
    )


def test_death_by_a_signal_is_seen(container: Make) -> None:
    one = container(shell("sleep 1000"))
    one.start()
    os.kill(one.pid, signal.SIGKILL)
    one.finish()
    assert (one.show("ExecMainStatus"), one.show("Result")) == (str(int(signal.SIGKILL)), "signal")


def test_start_after_everything_was_killed(container: Make) -> None:
    """All of the unit dies at once and crun's state stays behind, as after a loss of power: it starts again."""
    port = find_port()
    web = container(f'image = "{WEB}"\nports = ["127.0.0.1:{port}:8080"]\nwritable_layer = "keep"\n')
    web.start()
    state = Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd/crun" / web.name
    saved = state.parent.parent / f"saved-{web.name}"
    shutil.copytree(state, saved, ignore=shutil.ignore_patterns("*.fifo", "notify"))
    (web.cgroup / "cgroup.kill").write_text("1")
    web.finish()
    shutil.rmtree(state, ignore_errors=True)
    shutil.move(saved, state)
    web.start()
    assert "It works" in fetch(port)


def test_changed_definition_is_used_at_the_next_start(container: Make, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    mounts = f'mounts = ["{output}:/out"]\nnetwork = "none"\n'
    one = container(shell("echo $WORD > /out/word", f'{mounts}environment.WORD = "first"\n'))
    for word in ("first", "second"):
        one.define(shell("echo $WORD > /out/word", f'{mounts}environment.WORD = "{word}"\n'))
        one.start()
        one.finish()
        assert (output / "word").read_text() == f"{word}\n"


def test_stop_signal_reaches_init(container: Make, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    script = "trap 'echo USR1 > /out/signal; exit 0' USR1; trap 'echo TERM > /out/signal; exit 0' TERM; touch /out/up; "
    script += "while :; do sleep 0.1; done"
    for number, name in ((0, "USR1"), (1, "TERM")):
        more = f'mounts = ["{output}:/out"]\nnetwork = "none"\n' + (
            'stop_signal = "SIGUSR1"\n' if number == 0 else ""
        )
        one = container(shell(script, more))
        one.start()
        wait_until((output / "up").exists, "the traps are set")
        one.stop()
        assert (output / "signal").read_text() == f"{name}\n"
        assert (one.show("ActiveState"), one.show("Result")) == ("inactive", "success")
        (output / "up").unlink()


def test_who_ignores_the_stop_signal_is_killed_in_time(container: Make) -> None:
    script = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
    one = container(shell(script, 'network = "none"\nstop_timeout = 1\n'))
    one.start()
    wait_until(lambda: "deaf" in one.journal(), "the signal is ignored")
    started = time.monotonic()
    one.stop()
    assert time.monotonic() - started > 0.9
    assert one.show("Result") == "timeout"
    assert not one.cgroup.exists() or one.show("ControlGroup") == ""


def test_stop_leaves_nothing(container: Make) -> None:
    """No process, no state of crun's, no writable layer, no trash."""
    one = container(
        shell("touch /here; chown 1000 /here; mkdir -p /a/b; sleep 1000 & wait", "stop_timeout = 0\n")
    )
    one.start()
    group = one.cgroup
    one.stop()
    assert not group.exists()
    runtime = Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "usercontainerd"
    assert not (runtime / "crun" / one.name).exists()
    assert not (data / "containers" / one.name / "layer").exists()
    assert [path.name for path in (data / "trash").glob("layer-*")] == []


def test_output_is_in_the_journal(container: Make) -> None:
    one = container(shell("echo to the log; echo to the errors >&2; sleep 1"))
    one.start()
    log = one.finish()
    assert "to the log" in log
    assert "to the errors" in log


def test_init_reaps_and_forwards(container: Make, tmp_path: Path) -> None:
    """``init = true``: a small process 1 that passes on signals, and buries the dead."""
    output = tmp_path / "out"
    output.mkdir()
    script = "trap 'echo TERM > /out/signal; exit 0' TERM; cat /proc/1/cmdline > /out/init; "
    script += "(sleep 0.1 & ); while :; do sleep 0.3; ps | grep -q '[[]sleep[]]' || touch /out/up; done"
    one = container(shell(script, f'mounts = ["{output}:/out"]\nnetwork = "none"\ninit = true\n'))
    one.start()
    wait_until((output / "up").exists, "no dead orphan is seen")
    one.stop()
    assert (output / "init").read_text().split("\0")[:3] == ["/run/usercontainer-init", "--", "sh"]
    assert (output / "signal").read_text() == "TERM\n"


def test_missing_image_is_named(container: Make) -> None:
    one = container('image = "localhost:5000/no/such:image"\nnetwork = "none"\n')
    assert one.start(check=False).returncode != 0
    assert "localhost:5000/no/such:image" in one.show("StatusText")
    assert one.show("ExecMainStatus") == "125"


def test_missing_and_unusable_commands(container: Make) -> None:
    """The exit statuses of docker and of shells: 127 for what is not there, 126 for what cannot be run."""
    for command, status in (
        ("/no/such", "127"),
        ("no-such-name", "127"),
        ("/etc/passwd", "126"),
        ("/etc", "126"),
    ):
        one = container(f'image = "{BUSYBOX}"\ncommand = ["{command}"]\nnetwork = "none"\n')
        assert one.start(check=False).returncode != 0
        assert one.show("ExecMainStatus") == status, (command, one.show("StatusText"))
        assert command in one.show("StatusText")


def test_many_at_once(container: Make) -> None:
    made = [container(SLEEP) for _ in range(6)]
    run("systemctl", "--user", "start", *(one.unit for one in made))
    assert all(one.show("ActiveState") == "active" for one in made)
    run("systemctl", "--user", "stop", *(one.unit for one in made))
    assert all(one.show("ActiveState") == "inactive" for one in made)


def test_every_failure_says_why() -> None:
    """The launcher ends right after its last word, which systemd must have read by then."""
    text = f'image = "{BUSYBOX}"\ncommand = ["/no/such"]\nnetwork = "none"\n'
    ends = run_all({f"fails-{number}": text for number in range(16)})
    assert [status for status in ends.values() if "/no/such" not in status] == []


def test_the_status_of_what_ends_at_once_is_never_lost(container: Make) -> None:
    one = container(f'image = "{BUSYBOX}"\ncommand = ["sh", "-c", "exit 7"]\nnetwork = "none"\n')
    for _ in range(20):
        one.start()
        wait_until(lambda: one.has_ended, "the end")
        assert (one.show("ExecMainStatus"), one.show("Result")) == ("7", "exit-code")
        run("systemctl", "--user", "reset-failed", one.unit)
