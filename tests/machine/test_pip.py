"""`pip install` and `usercontainer setup` in a machine that has nothing of ours: a venv, --user, as root."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT))
sys.path.insert(0, str(CHECKOUT / "tools"))

from machinelib.native import probe_support  # noqa: E402

from tests.machine.test_without_subids import run_machine  # noqa: E402

REFUSED = probe_support()
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=str(REFUSED))

SOURCES = """
mkdir -p /tmp/src && cd /checkout
tar -c --exclude='./.*' --exclude=__pycache__ --exclude=./tests . | tar -x -C /tmp/src
"""
BUILD = "cd /tmp; test -d dist || pip wheel -q --no-deps -w dist /tmp/src"
DEFINITION = """\
image = "localhost:5000/web:latest"
ports = ["8081:8080"]
install.wanted_by = ["default.target"]
"""
LIST = "busctl --user call org.usercontainer1 /org/usercontainer1 org.usercontainer1.Manager ListContainers 'a{sv}' 0"
# Until systemd has noticed what the path unit saw.
WAIT = """
wait_for() { for _ in $(seq 600); do eval "$1" > /dev/null 2>&1 && return; sleep 0.1; done; echo "timeout: $1"; }
"""
HOME = "/home/alice"
VENV = f"{HOME}/my venv"
PATHS = f"{HOME}/.local/share"


class Machine:
    """One that runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, script: str, *, user: str = "alice", status: int | None = 0) -> str:
        """Run a script; what it prints, on both streams."""
        done = run_machine(
            "run",
            "--name",
            self.name,
            "--user",
            user,
            "--timeout",
            "120",
            "--",
            "bash",
            "-s",
            stdin=WAIT + script,
        )
        output = done.stdout + done.stderr
        assert status is None or done.returncode == status, output
        return output

    def define(self, name: str, text: str) -> None:
        """Write a definition of alice's."""
        path = f"{HOME}/.config/usercontainerd/containers/{name}.toml"
        self.run(f"mkdir -p {path.rpartition('/')[0]}; cat > {path} <<'END'\n{text}END\n")

    def log_in_again(self) -> None:
        """End alice's systemd with all it runs; it comes back to an empty runtime directory."""
        self.run(
            "systemctl kill -s KILL user@1000.service\n"
            "systemctl stop user@1000.service user-runtime-dir@1000.service\n"
            "test ! -e /run/user/1000 && systemctl start user@1000.service\n",
            user="root",
        )


def keep_machine(name: str, *options: str) -> Iterator[Machine]:
    run_machine("stop", "--name", name)  # of tests that were killed
    booted = run_machine("boot", "--name", name, "--registry", "--pip", *options)
    assert booted.returncode == 0, booted.stderr
    yield Machine(name)
    run_machine("stop", "--name", name)


@pytest.fixture(scope="module")
def bare() -> Iterator[Machine]:
    """A machine without our package; its tests leave no copy behind."""
    for machine in keep_machine("pip-bare", "--bare"):
        assert "not found" in machine.run("usercontainer", status=127)
        machine.run(SOURCES)
        yield machine


def test_a_virtual_environment_from_install_to_removal(bare: Machine) -> None:
    bare.run(f'cd /tmp/src; python3 -m venv "{VENV}"; "{VENV}/bin/pip" install -q .')
    command = f'"{VENV}/bin/usercontainer"'
    # Before the set-up: told plainly, and by each door.
    assert "run `usercontainer setup`" in bare.run(f"{command} pull localhost:5000/busybox", status=125)
    assert f"not set up: {VENV}" in bare.run(f"{command} setup --check", status=1)
    doctor = json.loads(bare.run(f"{command} doctor --json", status=1))
    assert {each["name"]: each["verdict"] for each in doctor}["set-up"] == "missing"

    assert f"write    {PATHS}/systemd/user/container@.service\n" in bare.run(f"{command} setup --dry-run")
    assert "written" in bare.run(f"{command} setup")
    assert "everything is in place" in bare.run(f"{command} setup")
    told = bare.run(f"{command} setup --check")
    assert told.count(f"programs in {VENV}") == 2
    assert f"by: {PATHS}/systemd/user/usercontainerd-units.service" in told

    # A definition that is written is a unit at once, without a daemon-reload; it does not start by that.
    bare.define("app", DEFINITION)
    bare.run("wait_for 'systemctl --user cat container@app | grep -q wanted_by\\|8081\\|launch'")
    assert bare.run("systemctl --user is-active container@app", status=None) == "inactive\n"
    bare.run("systemctl --user start container@app; wait_for 'curl -sS http://127.0.0.1:8081/'")
    assert "It works" in bare.run("curl -sS http://127.0.0.1:8081/")
    shown = bare.run("systemctl --user show container@app -p ExecStart -p FragmentPath -p NeedDaemonReload")
    assert f"path={VENV}/libexec/usercontainerd/launch" in shown
    assert "FragmentPath=/run/user/1000/systemd/user/container@app.service" in shown
    # The daemon that the bus activates is this copy's.
    assert '"app" "running"' in bare.run(LIST)
    assert f"path={VENV}/libexec/usercontainerd/usercontainerd" in bare.run(
        "systemctl --user show usercontainerd.service -p ExecStart"
    )
    doctor = json.loads(bare.run(f"{command} doctor --json", status=None))
    assert {each["name"]: each["verdict"] for each in doctor}["set-up"] == "fine"
    assert {each["name"]: each["verdict"] for each in doctor}["generator"] == "fine"

    check_edits(bare)
    check_boot(bare)
    check_findings(bare, command)
    check_removal(bare, command)


def test_as_the_readme_says(bare: Machine) -> None:
    """The very lines, and then the short name in the next login."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    python3 -m venv ~/usercontainer\n(?:    .*\n)+", readme, re.MULTILINE)
    assert "Next: `/home/alice/usercontainer/bin/usercontainer doctor`" in bare.run(
        f"set -e; cd /tmp/src\n{block}"
    )
    assert "CONTAINER ID" in bare.run("bash -l -c 'usercontainer ps'")
    assert f"{PATHS}/man/man1/usercontainer.1" in bare.run("bash -l -c 'man -w usercontainer'")
    bare.run("bash -l -c 'usercontainer setup --check && usercontainer setup --remove'")
    bare.run("rm -r ~/usercontainer ~/.local/bin/usercontainer")


def check_edits(bare: Machine) -> None:
    """Edits, drop-ins in a new directory, templates and removal are noticed."""
    unit = "systemctl --user cat container@app"
    bare.define("app", DEFINITION + 'resources.memory = "77M"\n')
    assert bare.run(f"wait_for '{unit} | grep MemoryMax=77M'") == ""
    drop_in = f"{HOME}/.config/usercontainerd/containers/app.toml.d"
    bare.run(f"mkdir {drop_in}; wait_for 'systemctl --user cat usercontainerd-units.path | grep {drop_in}'")
    assert (
        bare.run(
            f"echo 'resources.memory = \"99M\"' > {drop_in}/10-more.toml; wait_for '{unit} | grep MemoryMax=99M'"
        )
        == ""
    )
    assert bare.run("systemctl --user show container@app -p NeedDaemonReload") == "NeedDaemonReload=no\n"
    bare.define("gone", 'image = "localhost:5000/busybox"\n')
    bare.run("wait_for 'systemctl --user cat container@gone | grep launch'")
    bare.run("rm ~/.config/usercontainerd/containers/gone.toml")
    assert bare.run("wait_for '! test -e $XDG_RUNTIME_DIR/systemd/user/container@gone.service'") == ""
    bare.define("web@", 'image = "localhost:5000/busybox"\ncommand = ["sleep", "1000"]\n')
    bare.run("systemctl --user start container@web@blue; systemctl --user is-active container@web@blue")
    bare.run("systemctl --user stop container@web@blue")


def check_boot(bare: Machine) -> None:
    """A container that default.target wants starts at boot, before default.target is reached; others do not."""
    bare.define("idle", 'image = "localhost:5000/busybox"\n')
    bare.log_in_again()
    bare.run("wait_for 'systemctl --user is-active default.target'")
    assert bare.run("systemctl --user is-active container@app") == "active\n"
    assert bare.run("wait_for 'curl -sS http://127.0.0.1:8081/'") == ""
    assert bare.run("systemctl --user is-active container@idle", status=None) == "inactive\n"
    assert "default.target" in bare.run("systemctl --user show container@app -p Before")
    assert bare.run("systemctl --user --failed --no-legend") == ""
    command = f'"{VENV}/bin/usercontainer"'
    bare.run(
        f"{command} enable idle && {command} disable app && {command} disable idle && {command} enable app"
    )
    assert bare.run("ls $XDG_RUNTIME_DIR/systemd/user/default.target.wants") == "container@app.service\n"


def check_findings(bare: Machine, command: str) -> None:
    """What is missing, changed or for another Python is found, and mended where it is ours."""
    share = f"{PATHS}/systemd/user"
    bare.run(f"rm {PATHS}/dbus-1/services/org.usercontainer1.service; echo >> {share}/container.slice")
    told = bare.run(f"{command} setup --check", status=1)
    assert f"missing: {PATHS}/dbus-1/services/org.usercontainer1.service" in told
    assert f"changed by somebody: {share}/container.slice" in told
    assert f"{share}/container.slice" in bare.run(f"{command} setup", status=125)  # it is not taken over
    bare.run(f"{command} setup --force && {command} setup --check")
    bare.run("systemctl --user disable usercontainerd-units.path")
    assert "not enabled" in bare.run(f"{command} setup --check", status=1)
    bare.run(f"{command} setup && {command} setup --check")
    record = f"{HOME}/.local/state/usercontainerd/setup.json"
    for key, old in (("python", "3.9"), ("version", "0.0.1")):
        bare.run(f'sed -i \'s/\\("{key}": "\\)[^"]*/\\1{old}/\' {record}')
    told = bare.run(f"{command} setup --check", status=1)
    assert "the programs were set up for 3.9" in told
    assert "set up by version 0.0.1" in told
    bare.run(f"{command} setup && {command} setup --check")


def check_removal(bare: Machine, command: str) -> None:
    """Removal takes exactly what the set-up brought; containers and what users have stay."""
    refused = bare.run(f"{command} setup --remove", status=125)
    assert "containers run: app" in refused
    assert bare.run("systemctl --user is-active container@app") == "active\n"
    bare.run(
        f"echo '# mine' >> {PATHS}/systemd/user/container.slice; touch {PATHS}/systemd/user/mine.service"
    )
    bare.run("systemctl --user stop container@app")
    told = bare.run(f"{command} setup --remove")
    assert f"left, since it was changed: {PATHS}/systemd/user/container.slice" in told
    left = bare.run(
        f"cd; find .local .config '{VENV}/libexec' $XDG_RUNTIME_DIR/systemd/user -name '*container*' -not -type d"
        " -not -path '*/share/usercontainerd/*' 2>/dev/null; true"
    )
    assert sorted(left.split()) == [
        ".local/share/systemd/user/container.slice",
    ]
    bare.run(f"test -e {PATHS}/systemd/user/mine.service && rm {PATHS}/systemd/user/*")
    assert "localhost:5000/web" in bare.run(f"{command} images")
    assert "app.toml" in bare.run("ls ~/.config/usercontainerd/containers")
    assert bare.run("systemctl --user is-active usercontainerd-units.path", status=None) == "inactive\n"
    assert "Nothing is set up" in bare.run(f"{command} setup --remove")
    bare.run(f'rm -rf "{VENV}"')


def test_for_a_user_with_debians_python(bare: Machine) -> None:
    bare.run(BUILD)
    bare.run("pip install -q --user --break-system-packages /tmp/dist/*.whl")
    command = "~/.local/bin/usercontainer"
    bare.run(f"{command} setup && {command} setup --check")
    assert bare.run("head -n 1 ~/.local/libexec/usercontainerd/prepare") == "#!/usr/bin/python3 -IS\n"
    bare.define("app", DEFINITION)
    bare.run("wait_for 'systemctl --user cat container@app'; systemctl --user start container@app")
    assert f"path={HOME}/.local/libexec/usercontainerd/launch" in bare.run(
        "systemctl --user show container@app -p ExecStart"
    )
    assert '"app" "running"' in bare.run(LIST)
    bare.log_in_again()
    assert bare.run("wait_for 'systemctl --user is-active container@app'") == ""
    assert "These go on running" in bare.run(f"{command} setup --remove --force")
    assert bare.run("systemctl --user is-active container@app") == "active\n"
    bare.run("systemctl --user stop container@app")
    bare.run("pip uninstall -q -y --break-system-packages usercontainerd")
    assert bare.run("ls ~/.local/libexec ~/.local/bin 2> /dev/null; true").split() == []


def test_for_all_users_by_root(bare: Machine) -> None:
    bare.run(BUILD)
    bare.run("pip install -q --break-system-packages --root-user-action ignore /tmp/dist/*.whl", user="root")
    assert "sudo /usr/local/bin/usercontainer setup" in bare.run("usercontainer setup", status=125)
    bare.define("app", DEFINITION)
    bare.run("umask 077; usercontainer setup && usercontainer setup --check", user="root")
    # Users that are logged in have it at once, and nothing to do themselves.
    assert "Root has set up this copy" in bare.run("usercontainer setup && usercontainer setup --check")
    assert "generator: /usr/local/lib/systemd/user-generators/usercontainerd-generator" in bare.run(
        "usercontainer setup --check"
    ).replace("definitions become units by", "generator")
    bare.run("systemctl --user start container@app")
    shown = bare.run("systemctl --user show container@app -p ExecStart -p FragmentPath")
    assert "path=/usr/local/libexec/usercontainerd/launch" in shown
    assert "FragmentPath=/run/user/1000/systemd/generator/container@app.service" in shown
    assert '"app" "running"' in bare.run(LIST)
    bare.log_in_again()
    assert bare.run("wait_for 'systemctl --user is-active container@app'") == ""
    assert "1000/app" in bare.run("usercontainer setup --remove", user="root", status=125)
    bare.run("systemctl --user stop container@app")
    bare.run("usercontainer setup --remove", user="root")
    assert (
        bare.run("find /usr/local -name '*container*' -not -path '*/dist-packages/*' -not -path '*/bin/*'")
        == ""
    )
    bare.run(
        "pip uninstall -q -y --break-system-packages --root-user-action ignore usercontainerd", user="root"
    )


def test_a_set_up_for_all_is_not_roots_alone(bare: Machine) -> None:
    bare.run(f"{BUILD}; python3 -m venv --without-pip --system-site-packages /root/v", user="root")
    bare.run("pip --python /root/v/bin/python3 install -q --no-deps /tmp/dist/*.whl", user="root")
    told = bare.run("/root/v/bin/usercontainer setup", user="root", status=125)
    assert "/root: users other than root cannot get there" in told
    # Root's own, but alice could put another one there: what root writes would follow her links.
    bare.run(f"chmod 755 {HOME}; mv /root/v {HOME}/roots", user="root")
    told = bare.run(f"{HOME}/roots/bin/python3 {HOME}/roots/bin/usercontainer setup", user="root", status=125)
    assert f"{HOME}: this belongs to user 1000, who could change what all others run" in told
    bare.run(f"rm -rf {HOME}/roots; chmod 700 {HOME}", user="root")


@pytest.fixture
def packaged() -> Iterator[Machine]:
    """A machine with our package."""
    for machine in keep_machine("pip-beside"):
        machine.run(SOURCES)
        yield machine


def test_a_copy_beside_the_package(packaged: Machine) -> None:
    assert "nothing to do" in packaged.run("usercontainer setup && usercontainer setup --check")
    packaged.run("cd /tmp/src; python3 -m venv ~/v; ~/v/bin/pip install -q .")
    told = packaged.run("~/v/bin/usercontainer setup")
    assert (
        "There is a generator for all users (/usr/lib/systemd/user-generators/usercontainerd-generator)"
        in told
    )
    assert packaged.run(f"ls {PATHS}/systemd/user").split() == [
        "container-health@.service",
        "container.slice",
        "container@.service",
        "usercontainerd-failed@.service",
        "usercontainerd.service",
    ]
    told = packaged.run("~/v/bin/usercontainer setup --check")
    assert "by: /usr/lib/systemd/user-generators/usercontainerd-generator" in told
    assert (
        f"D-Bus interface:             {PATHS}/systemd/user/usercontainerd.service, programs in {HOME}/v"
        in told
    )
    assert packaged.run(LIST) == "a(ossss) 0\n"
    assert f"path={HOME}/v/libexec/usercontainerd/usercontainerd" in packaged.run(
        "systemctl --user show usercontainerd.service -p ExecStart"
    )
    doctor = json.loads(packaged.run("usercontainer doctor --json", status=None))
    (found,) = (each for each in doctor if each["name"] == "set-up")
    assert found["verdict"] == "lost"
    assert f"programs in {HOME}/v" in found["found"]
    # A container that the package's programs run is nothing to the removal of the copy.
    packaged.define("app", DEFINITION)
    packaged.run("systemctl --user daemon-reload; systemctl --user start container@app")
    # The package's command takes away what a virtual environment that is gone has left.
    packaged.run("rm -rf ~/v")
    assert "the Python package is gone" in packaged.run("usercontainer setup --check", status=1)
    packaged.run("usercontainer setup --remove && usercontainer setup --check")
    assert '"app" "running"' in packaged.run(LIST)
    assert "path=/usr/libexec/usercontainerd/usercontainerd" in packaged.run(
        "systemctl --user show usercontainerd.service -p ExecStart"
    )
