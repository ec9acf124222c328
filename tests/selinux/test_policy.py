"""The policy module where SELinux is enforcing: labels come by themselves, nothing is denied, and it can be removed.

In this order: the last one takes the module out and puts it back.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.containers import BUSYBOX, run
from tests.support.login import as_alice, find_daemon, show_unit
from tests.support.policy import (
    RUNTIME,
    STORE,
    Ran,
    find_doctor,
    follow_advice,
    install_module,
    list_denials,
    list_mislabelled,
    read_type,
    remove_module,
)
from usercontainerd.engine.host.selinux_checks import READ_ONLY, TYPES, WRITABLE

OWN = "usercontainerd_home_t"


def test_the_policy_is_in_force() -> None:
    assert run("getenforce").stdout == "Enforcing\n"
    modules = [line.split() for line in run("semodule", "--list-modules=full").stdout.splitlines()]
    assert ["200", "usercontainerd", "pp"] in modules


def test_containers_run(ran: Ran) -> None:
    """Started by systemd and by the bus; published; entered; stopped."""
    assert "It works" in ran.page
    assert show_unit("container@page.service", "Result") == "success"
    assert show_unit("container@kept.service", "ActiveState") == "active"
    assert find_daemon() > 0
    # docs/selinux.md: the user's own, until containers are given labels.
    assert ran.domain == "unconfined_t"


def test_labels_come_by_themselves(ran: Ran) -> None:
    (layer, *_) = (STORE / "layers").glob("*/diff/www/index.html")
    (written,) = (STORE / "containers/kept").rglob("written")
    places = {
        **dict.fromkeys(
            (STORE, *(STORE / name for name in ("images", "names", "blobs", "locks", "created"))), OWN
        ),
        **{STORE / name: kind for name, kind in TYPES.items()},
        **dict.fromkeys((layer, written), READ_ONLY),
        # Filled from the image, and the volume that stayed empty.
        **dict.fromkeys((STORE / "volumes/data/_data/index.html", STORE / "volumes/empty/_data"), WRITABLE),
        # Without this label Debian's policy lets systemd start no container that `create` made.
        RUNTIME / "systemd/user": "systemd_user_runtime_unit_t",
    }
    assert {path: read_type(path) for path in places} == places


def test_the_policy_expects_these_labels(ran: Ran) -> None:
    """By files as they are: restorecon(8). By name, what is not there yet: matchpathcon(8)."""
    assert list_mislabelled(STORE, RUNTIME / "usercontainerd", RUNTIME / "systemd") == []
    names = [f"/home/bob/.local/share/usercontainerd/{name}/x" for name in TYPES]
    shown = run("matchpathcon", "-n", *names).stdout.split()
    assert [label.split(":")[2] for label in shown] == list(TYPES.values())


def test_nothing_was_denied(ran: Ran) -> None:
    assert list_denials() == []


def test_doctor_when_all_is_well(ran: Ran) -> None:
    found = find_doctor("selinux")
    assert (found["verdict"], found["found"]) == ("lost", "enforcing")
    assert find_doctor("selinux labels")["verdict"] == "fine"
    run("chcon", "-t", "user_home_t", str(STORE / "volumes"))
    follow_advice(find_doctor("selinux labels"))
    assert find_doctor("selinux labels")["verdict"] == "fine"


def test_doctor_when_the_store_is_elsewhere(ran: Ran) -> None:
    place, setting = Path("/srv/alice"), "XDG_DATA_HOME=/srv/alice"
    place.mkdir()
    shutil.chown(place, "alice")
    as_alice("env", setting, "usercontainer", "pull", BUSYBOX)
    follow_advice(find_doctor("selinux labels", setting))
    assert find_doctor("selinux labels", setting)["verdict"] == "fine"
    assert read_type(place / "usercontainerd/layers") == READ_ONLY


def test_doctor_when_it_is_permissive(ran: Ran) -> None:
    run("setenforce", "0")
    try:
        found = find_doctor("selinux")
    finally:
        run("setenforce", "1")
    assert (found["verdict"], found["found"]) == ("fine", "permissive")


def test_without_the_module(ran: Ran) -> None:
    """Removed under a container, which goes on; rules of the administrator's own instead; installed again."""
    pid = show_unit("container@kept.service", "MainPID")
    remove_module()
    try:
        found = find_doctor("selinux labels")
        assert "no rules" in found["found"]
        follow_advice(found)
        assert find_doctor("selinux labels")["verdict"] == "fine"
        as_alice("systemctl", "--user", "start", "container@page.service")
        as_alice("systemctl", "--user", "stop", "container@page.service")
    finally:
        install_module()
    # As the package's scripts end: without the module, the store's own type was one that no policy had.
    run("restorecon", "-R", str(STORE))
    assert show_unit("container@kept.service", "MainPID") == pid
    assert find_doctor("selinux labels")["verdict"] == "fine"
    assert list_mislabelled(STORE) == []
    assert list_denials() == []
