"""Installed from packages alone: a container runs, through an upgrade and through the removal."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.containers import BUSYBOX, run, wait_until
from tests.support.login import as_alice, find_daemon, show_unit
from tests.support.packages import CHECKOUT, NAMES, NEWER, OLDER, Built, Life, define, run_dnf

STORE = Path("/home/alice/.local/share/usercontainerd")


def list_processes(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_all_files_are_as_packaged(older: Life) -> None:
    assert run("rpm", "--verify", *NAMES).stdout == ""
    assert OLDER in as_alice("usercontainer", "--version").stdout


def test_a_container_runs_as_a_service(older: Life) -> None:
    assert show_unit(older.unit, "ActiveState") == "active"
    assert Path(f"/proc/{older.pid}/comm").read_text() == "sh\n"
    assert "generator" in show_unit(older.unit, "FragmentPath")
    wait_until(
        lambda: "started" in as_alice("usercontainer", "logs", "app").stdout, "its output in the journal"
    )


def test_the_bus_starts_the_daemon(older: Life) -> None:
    assert older.daemon > 0
    assert b"/usr/libexec/usercontainerd/usercontainerd" in Path(f"/proc/{older.daemon}/cmdline").read_bytes()
    shown = as_alice(
        "busctl", "--user", "introspect", "org.usercontainer1", "/org/usercontainer1/container/app"
    )
    assert "org.usercontainer1.Container" in shown.stdout


def test_manual_pages_open(older: Life) -> None:
    for page in (
        "usercontainer",
        "usercontainer-docker",
        "container-definition",
        "org.usercontainer1",
        "usercontainerd.toml",
    ):
        assert "NAME" in as_alice("env", "MANPAGER=cat", "man", page).stdout


def test_shells_complete(older: Life) -> None:
    for command in ("usercontainer", "docker", "podman"):
        script = f"""
            . /usr/share/bash-completion/completions/{command}.bash
            COMP_LINE='{command} insp'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({command} insp); COMP_CWORD=1
            "$(complete -p {command} | sed 's/.*-F \\([^ ]*\\).*/\\1/')" {command} insp {command}
            echo "${{COMPREPLY[@]}}"
        """
        assert "inspect" in as_alice("bash", "-c", script).stdout.split(), command


def test_docker_and_podman_are_usercontainer(older: Life) -> None:
    for command in ("docker", "podman"):
        assert "app" in as_alice(command, "ps").stdout


def test_a_new_user_of_the_machine_has_it_too(older: Life) -> None:
    done = run(
        "runuser",
        "-u",
        "bob",
        "--",
        "env",
        "HOME=/home/bob",
        "XDG_RUNTIME_DIR=/run/user/1001",
        "usercontainer",
        "ps",
    )
    assert "CONTAINER ID" in done.stdout


def test_an_upgrade_leaves_the_container_alone(newer: Life) -> None:
    assert NEWER in as_alice("usercontainer", "--version").stdout
    assert int(show_unit(newer.unit, "MainPID")) == newer.pid
    assert show_unit(newer.unit, "ActiveState") == "active"
    assert show_unit(newer.unit, "NeedDaemonReload") == "no"


def test_an_upgrade_renews_the_daemon(newer: Life) -> None:
    assert find_daemon() != newer.daemon
    shown = as_alice(
        "busctl",
        "--user",
        "get-property",
        "org.usercontainer1",
        "/org/usercontainer1",
        "org.usercontainer1.Manager",
        "Version",
    )
    assert NEWER in shown.stdout


def test_after_an_upgrade_the_running_container_is_looked_after(newer: Life) -> None:
    assert as_alice("usercontainer", "exec", "app", "ls", "/written-before").stdout == "/written-before\n"
    [found] = json.loads(as_alice("usercontainer", "inspect", "app").stdout)
    assert found["State"]["Pid"] == newer.pid
    as_alice("systemctl", "--user", "stop", newer.unit)
    assert show_unit(newer.unit, "Result") == "success"
    assert not list_processes(newer.pid)


def test_after_an_upgrade_nothing_of_the_old_run_is_left(newer: Life) -> None:
    assert list(STORE.rglob("written-before")) == []


def test_after_an_upgrade_it_starts_again(newer: Life) -> None:
    as_alice("systemctl", "--user", "start", newer.unit)
    assert as_alice("usercontainer", "exec", "app", "ls", "/written-before", check=False).returncode != 0
    as_alice("systemctl", "--user", "stop", newer.unit)


def test_a_created_container_can_be_removed(newer: Life) -> None:
    as_alice("usercontainer", "create", "--name", "made", BUSYBOX, "sleep", "100")
    as_alice("usercontainer", "start", "made")
    as_alice("usercontainer", "rm", "-f", "made")
    assert "made" not in as_alice("usercontainer", "ps", "-a").stdout


def test_removal_stops_no_container(removed: Life) -> None:
    assert run("rpm", "--query", *NAMES, check=False).returncode == len(NAMES)
    assert int(show_unit(removed.unit, "MainPID")) == removed.pid
    assert show_unit(removed.unit, "ActiveState") == "active"


def test_removal_ends_the_daemon(removed: Life) -> None:
    wait_until(lambda: not list_processes(removed.daemon), "the daemon's end")


def test_after_the_removal_a_container_can_be_stopped(removed: Life) -> None:
    as_alice("systemctl", "--user", "stop", removed.unit)
    assert show_unit(removed.unit, "ActiveState") == "inactive"
    assert not list_processes(removed.pid)


def test_removal_leaves_what_is_the_users_and_nothing_else(removed: Life) -> None:
    assert any((STORE / "layers").iterdir())
    assert Path("/home/alice/.config/usercontainerd/containers/app.toml").exists()
    for place in ("/usr", "/etc"):
        left = run(
            "find", place, "-path", "/usr/share/doc", "-prune", "-o", "-name", "*usercontainer*", "-print"
        )
        assert left.stdout == ""


def test_installed_again_all_is_there(removed: Life, built: Built) -> None:
    run_dnf(built.newer, "install", "usercontainerd")
    define("later")
    assert BUSYBOX.removesuffix(":latest") in as_alice("usercontainer", "images").stdout
    for name in ("app", "later"):
        as_alice("systemctl", "--user", "start", f"container@{name}.service")
        as_alice("systemctl", "--user", "stop", f"container@{name}.service")


def test_the_plan_for_fedora_passes(removed: Life, built: Built) -> None:
    run_dnf(built.newer, "install", "usercontainerd", "usercontainerd-docker")
    script = str(CHECKOUT / "tests/tmt/main-job/test.sh")
    done = run("env", f"IMAGE={BUSYBOX}", "TEST_USER=alice", script, timeout=120)
    assert done.stdout.endswith("PASSED\n")
