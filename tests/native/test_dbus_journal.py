"""What the daemon and what starts containers tell the journal, read back as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bus import CONTAINER, NAME, busctl, call, call_manager, finish_job
from tests.support.containers import BUSYBOX, SLEEPER, Container, read_journal, run
from usercontainerd.daemon import logbook
from usercontainerd.engine.containers.lookup import container_id

Make = Callable[..., Container]


pytestmark = pytest.mark.usefixtures("bus_image")


def find_entries(*matches: str) -> list[dict[str, Any]]:
    """At least one."""
    found = read_journal(*matches)
    assert found, matches
    return found


def test_who_wanted_what_of_a_container(container: Make) -> None:
    one = container(SLEEPER)
    (path,) = call_manager("GetContainer", "sa{sv}", one.name, "0")
    call(path, CONTAINER, "Start", "a{sv}", "0")
    entry = find_entries(f"CONTAINER_NAME={one.name}", f"MESSAGE_ID={logbook.CONTAINER_ASKED}")[0]
    assert entry["MESSAGE"].startswith(f"start of container {one.name} for :1.")
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "usercontainerd"
    assert entry["USERCONTAINER_OPERATION"] == "start"
    assert entry["USERCONTAINER_SENDER"].startswith(":1.")
    assert entry["CONTAINER_ID_FULL"] == container_id(one.name)
    assert entry["_SYSTEMD_USER_UNIT"] == "usercontainerd.service"
    # The unit's log has the daemon's word beside systemd's and the container's.
    assert entry["MESSAGE"] in [each["MESSAGE"] for each in read_journal("-u", one.unit)]
    assert entry["MESSAGE"] not in run("usercontainer", "logs", one.name).stdout


def test_jobs(container: Make) -> None:
    (job,) = call_manager("Pull", "sa{sv}", BUSYBOX, "0")
    assert finish_job(job)["State"] == "done"
    (bad,) = call_manager("Pull", "sa{sv}", "localhost:5000/nothing\x1b", "0")
    assert finish_job(bad)["State"] == "failed"
    begun = find_entries(f"USERCONTAINER_JOB={job}", f"MESSAGE_ID={logbook.JOB_BEGUN}")[-1]
    assert begun["IMAGE_NAME"] == BUSYBOX
    assert begun["USERCONTAINER_OPERATION"] == "pull"
    done = find_entries(f"USERCONTAINER_JOB={job}", f"MESSAGE_ID={logbook.JOB_DONE}")[-1]
    assert done["MESSAGE"] == f"pull {BUSYBOX} is done"
    failed = find_entries(f"USERCONTAINER_JOB={bad}", f"MESSAGE_ID={logbook.JOB_FAILED}")[-1]
    assert failed["PRIORITY"] == "4"
    assert failed["IMAGE_NAME"] == "localhost:5000/nothing\\x1b"
    assert failed["USERCONTAINER_ERROR"].startswith("org.usercontainer1.Error.")
    assert "\x1b" not in failed["MESSAGE"]


def test_a_child_that_crashes() -> None:
    for _ in range(30):
        (job,) = call_manager("CheckStore", "a{sv}", "0")
        run("pkill", "-KILL", "-f", "libexec/usercontainerd/job ", check=False)
        if (state := finish_job(job)["State"]) != "done":
            break  # else it was faster
    assert state == "failed"
    entry = find_entries(f"USERCONTAINER_JOB={job}", f"MESSAGE_ID={logbook.CHILD_CRASHED}")[-1]
    assert entry["MESSAGE"] == "the process of check was killed by signal 9"
    assert entry["PRIORITY"] == "3"


def test_a_refused_caller() -> None:
    name = f"{NAME}.Apps"
    refused = busctl("call", name, "/org/usercontainer1/Apps", name, "ListContainers", "a{sv}", "0")
    assert refused.returncode != 0
    entry = find_entries(f"MESSAGE_ID={logbook.CALLER_REFUSED}")[-1]
    assert entry["PRIORITY"] == "4"
    assert entry["USERCONTAINER_METHOD"] == f"{NAME}.Apps.ListContainers"
    assert entry["USERCONTAINER_ERROR"] == "org.usercontainer1.Error.AccessDenied"


def test_the_start_of_the_daemon() -> None:
    run("systemctl", "--user", "stop", "usercontainerd")
    call_manager("ListContainers", "a{sv}", "0")
    pid = run("systemctl", "--user", "show", "-P", "MainPID", "usercontainerd").stdout.strip()
    (entry,) = find_entries(f"MESSAGE_ID={logbook.STARTED}", f"_PID={pid}")
    assert "containers: " in entry["MESSAGE"]


def test_a_start_that_fails_is_an_error_of_the_unit(container: Make) -> None:
    one = container('image = "localhost:5000/nothing-here"\nnetwork = "none"\n')
    assert one.start(check=False).returncode != 0
    entries = find_entries("-u", one.unit, "-p", "err")
    assert any("the registry has no such image" in entry["MESSAGE"] for entry in entries)
    assert not any("<3>" in entry["MESSAGE"] for entry in entries)
