"""What the real user manager makes of definitions: by way of the generator, and without it having known them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, Container, run, wait_until
from usercontainerd.systemd.renewal import reload_stale_unit

SLEEP = f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["sleep", "1000"]\nstop_signal = "SIGKILL"\n'
GENERATED = Path(os.environ["XDG_RUNTIME_DIR"], "systemd/generator")
CONTAINERS = Path(os.path.expanduser("~/.config/usercontainerd/containers"))

MakeContainer = Callable[..., Container]


@pytest.fixture
def plain() -> Iterator[Callable[[str], Container]]:
    """Containers whose definition no daemon-reload has seen."""
    made: list[Container] = []

    def make(name: str) -> Container:
        one = Container(name)
        one.path.parent.mkdir(parents=True, exist_ok=True)
        made.append(one)
        return one

    yield make
    for one in made:
        one.remove()
        template = one.path.with_name(f"{one.name.partition('@')[0]}@.toml")
        template.unlink(missing_ok=True)
        shutil.rmtree(f"{one.path}.d", ignore_errors=True)
    run("systemctl", "--user", "daemon-reload")


def verify(*paths: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", "--recursive-errors=no", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_unit_that_cat_shows(container: MakeContainer) -> None:
    one = container(
        f'{SLEEP}restart = "on-failure"\n[resources]\nmemory = "32M"\n[unit]\nafter = ["a.service"]\n'
    )
    text = run("systemctl", "--user", "cat", one.unit).stdout
    assert text.startswith(f"# {GENERATED}/{one.unit}\n# Generated from {one.path}\n")
    for line in ("Restart=on-failure", "MemoryMax=32M", "After=a.service", f"SourcePath={one.path}"):
        assert f"\n{line}\n" in text
    assert one.show("LoadState") == "loaded"
    assert one.show("UnitFileState") == "generated"
    assert one.show("MemoryMax") == str(32 << 20)


NASTY_DEFINITIONS = {
    "description": 'description = "100% of $HOME \\"quoted\\" \\\\ ends in a backslash \\\\"',
    "mounts": "mounts = [{ type = 'bind', source = '/srv/50% of \"my\\ data', target = '/a' }]",
    "resources": "[resources]\nmemory = '64M'\nmemory_high = '60M'\nswap = '0'\ncpus = 0.25\ncpu_weight = 50\n"
    "pids = 33\nio_weight = 500",
    "stop": 'stop_signal = "SIGRTMIN+3"\nstop_timeout = 0.5',
    "impatient": "stop_timeout = 0",
    "patient": "stop_timeout = 'infinity'",
    "install": "[install]\nwanted_by = ['default.target', 'a.target']\nrequired_by = ['b.target']\n"
    "upheld_by = 'c.target'",
    "through": "[service]\nenvironment_file = '-%h/some file'\nexec_start_post = '/bin/echo \"a b\" $MAINPID %n'\n"
    "[unit]\nwants = 'nothing-there.service'\ncondition_path_exists = '/'",
}


def test_verify_finds_nothing(container: MakeContainer) -> None:
    """Of all that we write: whole units, those of broken definitions, what we ship."""
    units = [
        container(f"image = '{BUSYBOX}'\n{text}\n", f"verify-{kind}").unit
        for kind, text in NASTY_DEFINITIONS.items()
    ]
    units.append(container("image = 1\n", "verify-broken").unit)
    paths = [GENERATED / unit for unit in units]
    assert all(path.exists() for path in paths)
    assert verify(*paths) == ""
    assert not [unit for unit in units if "renew-unit" in (GENERATED / unit).read_text()][:-1]
    shipped = Path("/usr/lib/systemd/user")
    assert verify(shipped / "container.slice", shipped / "container@.service") == ""


def test_text_arrives_as_it_was_meant(container: MakeContainer) -> None:
    one = container(
        f"image = '{BUSYBOX}'\n{NASTY_DEFINITIONS['description']}\n{NASTY_DEFINITIONS['mounts']}\n"
    )
    assert one.show("Description") == '100% of $HOME "quoted" \\ ends in a backslash \\.'
    assert "/srv/50% of" in one.show("RequiresMountsFor")


def test_a_broken_definition_says_why_and_starts_once_it_is_mended(container: MakeContainer) -> None:
    one = container('image = 1\nmemry = "1M"\n')
    assert one.start(check=False).returncode == 1
    status = run("systemctl", "--user", "status", one.unit, check=False).stdout
    assert f'Status: "{one.path}:1: error: image: must be a string' in status
    assert "78/CONFIG" in status
    assert f"{one.path}:2: error: memry: unknown key" in one.journal()
    assert f"{one.path}:2: error: memry" in run("systemctl", "--user", "cat", one.unit).stdout
    one.path.write_text(f"{SLEEP}[service]\nlimit_nofile = 77\n")
    one.start()  # without a daemon-reload
    comm = Path(f"/proc/{one.pid}/comm")
    wait_until(lambda: comm.read_text() == "sleep\n", "init has become the command")
    assert one.show("LimitNOFILE") == "77"
    assert one.show("FragmentPath") == f"{GENERATED}/{one.unit}"


def test_no_definition(plain: Callable[[str], Container]) -> None:
    one = plain("nothing-of-that-name")
    assert one.start(check=False).returncode == 1
    status = run("systemctl", "--user", "status", one.unit, check=False).stdout
    assert 'there is no definition of a container "nothing-of-that-name"' in status
    assert f"{one.path}: " in one.show("StatusText")
    assert "container-definition(5)" in status


def test_a_likely_name(container: MakeContainer, plain: Callable[[str], Container]) -> None:
    container(SLEEP, "likely-name")
    assert plain("likly-name").start(check=False).returncode == 1
    assert 'did you mean "likely-name"?' in plain("likly-name").show("StatusText")


def test_a_name_that_cannot_be(plain: Callable[[str], Container]) -> None:
    one = plain("a:b")
    assert one.start(check=False).returncode == 1
    assert "cannot be a container's name" in one.show("StatusText")


def test_a_new_definition_needs_no_reload(plain: Callable[[str], Container]) -> None:
    one = plain("brand-new")
    one.path.write_text(f"{SLEEP}restart = 'always'\n")
    one.start()
    assert one.show("ActiveState") == "active"
    assert one.show("Restart") == "always"
    assert one.show("NeedDaemonReload") == "no"
    assert "/container.slice/container@brand-new.service" in one.show("ControlGroup")


def test_an_edited_definition_is_noticed(container: MakeContainer) -> None:
    one = container(SLEEP)
    one.start()
    assert one.show("NeedDaemonReload") == "no"
    os.utime(one.path, (2e9, 2e9))
    assert one.show("NeedDaemonReload") == "yes"


def test_an_instance_of_a_template(plain: Callable[[str], Container]) -> None:
    one = plain("tmpl@blue")
    template = one.path.with_name("tmpl@.toml")
    template.write_text(f"{SLEEP}description = 'Colour %i'\n[resources]\npids = 55\n[service]\nnice = 7\n")
    one.start()
    assert one.show("Description") == "Colour blue"
    assert one.show("TasksMax") == "55"
    # Field 19 of proc_pid_stat(5): what the process itself has, although the start began without it.
    assert Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[16] == "7"
    pid = one.pid
    run("systemctl", "--user", "daemon-reload")
    assert (one.pid, one.show("TasksMax")) == (pid, "55")
    run("systemctl", "--user", "restart", one.unit)
    assert "renew-unit" not in run("systemctl", "--user", "cat", one.unit).stdout
    template.write_text(template.read_text().replace("55", "66"))
    run("systemctl", "--user", "daemon-reload")
    assert one.show("TasksMax") == "66"


def test_an_instance_that_is_enabled(plain: Callable[[str], Container]) -> None:
    one = plain("tmpl@green")
    one.path.with_name("tmpl@.toml").write_text(f"{SLEEP}[resources]\npids = 55\n")
    run("systemctl", "--user", "enable", one.unit)
    try:
        assert (GENERATED / one.unit).exists()
        assert one.show("TasksMax") == "55"
        assert one.unit in run("systemctl", "--user", "show", "-p", "Wants", "default.target").stdout
    finally:
        run("systemctl", "--user", "disable", one.unit)


def test_install_is_effective(container: MakeContainer) -> None:
    text = "[install]\nwanted_by = 'default.target'\nrequired_by = 'timers.target'\nalias = 'alias@installed.service'\n"
    one = container(SLEEP + text, "installed")
    try:
        assert one.unit in run("systemctl", "--user", "show", "-p", "Wants", "default.target").stdout
        assert one.unit in run("systemctl", "--user", "show", "-p", "Requires", "timers.target").stdout
        assert one.unit in run("systemctl", "--user", "show", "-p", "Id", "alias@installed.service").stdout
    finally:
        one.remove()  # and what requires it stops with it
        run("systemctl", "--user", "daemon-reload")
        run("systemctl", "--user", "start", "timers.target")


def test_many_starts_at_once_of_what_systemd_does_not_know(plain: Callable[[str], Container]) -> None:
    ones = [plain(f"crowd@{number}") for number in range(8)]
    ones[0].path.with_name("crowd@.toml").write_text(f"{SLEEP}[resources]\npids = 44\n")
    run("systemctl", "--user", "start", *(one.unit for one in ones))
    assert {one.show("TasksMax") for one in ones} == {"44"}
    assert len({one.pid for one in ones}) == len(ones)


@pytest.mark.parametrize(("status", "result"), [(143, "success"), (0, "success"), (1, "exit-code")])
def test_stop_of_what_exits_as_shells_do(container: MakeContainer, status: int, result: str) -> None:
    script = f"trap 'exit {status}' TERM; echo trapped; while :; do sleep 0.05; done"
    one = container(f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["sh", "-c", "{script}"]\n')
    one.start()
    while "trapped" not in one.journal():
        pass
    one.stop()
    assert one.show("Result") == result
    assert one.show("ActiveState") == ("inactive" if result == "success" else "failed")


def test_no_patience(container: MakeContainer) -> None:
    one = container(SLEEP.replace('stop_signal = "SIGKILL"', "stop_timeout = 0"))
    one.start()
    one.stop()
    assert one.show("Result") == "success"


def test_what_the_image_asks_for(container: MakeContainer) -> None:
    one = container(f'image = "{BUSYBOX}"\nnetwork = "none"\ncommand = ["sleep", "1000"]\n')
    one.start()
    text = Path(one.show("FragmentPath")).read_text()
    drop_in = "[Service]\nKillSignal=SIGKILL\nSuccessExitStatus=SIGKILL\n"
    runtime = os.environ["XDG_RUNTIME_DIR"]
    assert reload_stale_unit(runtime, one.unit, text, drop_in)
    assert not reload_stale_unit(runtime, one.unit, text, drop_in)
    assert one.show("KillSignal") == "9"
    one.stop()
    assert one.show("Result") == "success"
    assert reload_stale_unit(runtime, one.unit, text, "")
    assert one.show("KillSignal") == "15"
    assert one.show("DropInPaths") == ""
