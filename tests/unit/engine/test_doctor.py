"""doctor: what is concluded from what a host shows."""

from __future__ import annotations

import json
import subprocess

import pytest

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.cli.doctor import render_findings
from usercontainerd.engine.host import doctor
from usercontainerd.engine.host.doctor import (
    Finding,
    Verdict,
    fine,
    has_missing,
    lost,
    missing,
    plan_installation,
)
from usercontainerd.engine.host.host_checks import (
    find_file_system,
    judge_kernel,
    judge_subordinate_ids,
    judge_user_namespaces,
)
from usercontainerd.engine.host.session_checks import judge_controllers, judge_setup, judge_units
from usercontainerd.engine.host.tool_checks import judge_crun, judge_pasta, judge_policy
from usercontainerd.engine.setup.check import Effect, Inspection, Problem
from usercontainerd.engine.setup.installation import Copy
from usercontainerd.engine.setup.plan import Installed, Scope, plan_places
from usercontainerd.engine.setup.record import Record
from usercontainerd.trust.policy import parse_policy

FINE, LOST, MISSING = Verdict.FINE, Verdict.LOST, Verdict.MISSING


@pytest.mark.parametrize(
    ("release", "verdict"),
    [("6.18.44-x", FINE), ("5.11.0", FINE), ("5.10.0-28-amd64", MISSING), ("4.18.0-513.el8", MISSING)],
)
def test_kernel(release: str, verdict: str) -> None:
    assert judge_kernel(release).verdict == verdict


def test_user_namespaces_name_the_switch() -> None:
    finding = judge_user_namespaces(
        "Operation not permitted",
        {"/proc/sys/user/max_user_namespaces": "1000", "/proc/sys/kernel/unprivileged_userns_clone": "0"},
    )
    assert finding.verdict == MISSING
    assert finding.mend.startswith("echo kernel.unprivileged_userns_clone=1 | sudo tee ")
    restricted = {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}
    assert "apparmor_restrict_unprivileged_userns=0" in judge_user_namespaces("x", restricted).mend
    assert judge_user_namespaces("Operation not permitted", {}).found == "Operation not permitted"


@pytest.mark.parametrize(
    ("ranges", "verdict"),
    [([(100000, 65536)], FINE), ([(1, 40000), (2, 40000)], FINE), ([(1, 1000)], LOST), ([], LOST)],
)
def test_subordinate_ids(ranges: list[tuple[int, int]], verdict: str) -> None:
    finding = judge_subordinate_ids("subgid", "alice", ranges)
    assert finding.verdict == verdict
    assert verdict == FINE or finding.mend == "sudo usermod --add-subgids 100000-165535 alice"


def test_controllers_have_a_line_each() -> None:
    findings = list(judge_controllers("cpu memory pids"))
    assert [(each.name, each.verdict) for each in findings] == [
        ("cgroup cpu", FINE),
        ("cgroup io", LOST),
        ("cgroup memory", FINE),
        ("cgroup pids", FINE),
    ]
    assert "Delegate=cpu cpuset io memory pids" in findings[1].mend
    assert "io_weight" in findings[1].lost
    assert [each.verdict for each in judge_controllers(None)] == [LOST]


def test_units() -> None:
    assert judge_units("/usr/lib/x", True).verdict == FINE
    assert judge_units(None, True).verdict == LOST
    assert judge_units("/usr/lib/x", False).verdict == LOST


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("crun version 1.21\nspec: 1.0.0\n+SYSTEMD +CAP +SECCOMP\n", FINE),
        ("crun version 1.28.1\n+CAP +SECCOMP\n", FINE),
        ("crun version 1.21\n+CAP\n", LOST),
        ("crun version 1.4.5\n+CAP +SECCOMP\n", MISSING),
        ("", LOST),
        ("crun version\n", LOST),
    ],
)
def test_crun(text: str, verdict: str) -> None:
    assert judge_crun("/usr/bin/crun", text).verdict == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("pasta 2024_08_21.1d6142f", FINE),
        ("pasta 0^20250503.g587980c-1.fc42.x86_64-pasta", FINE),
        ("pasta 0.0~git20250503.587980c-2", FINE),
        ("pasta 2024_08_14.61c0b0d", LOST),
        ("pasta 0.0~git20230309.7c7625d-1", LOST),
        ("pasta unknown version", FINE),
    ],
)
def test_pasta_needs_a_version_with_the_options_that_are_used(text: str, verdict: str) -> None:
    assert judge_pasta("/usr/bin/pasta", text, "the network").verdict == verdict


def test_pasta_that_does_not_know_its_version_is_judged_by_its_options() -> None:
    assert judge_pasta("/usr/bin/pasta", "pasta unknown version", "the network", knows=False).verdict == LOST


@pytest.mark.parametrize(
    ("requirement", "gpg", "cryptography", "verdict"),
    [
        ({"type": "reject"}, None, False, FINE),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}, None, True, LOST),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}, "/usr/bin/gpg", False, FINE),
        ({"type": "sigstoreSigned", "keyPath": "/k"}, "/usr/bin/gpg", False, LOST),
        ({"type": "sigstoreSigned", "keyPath": "/k"}, None, True, FINE),
    ],
)
def test_signature_policy(
    requirement: dict[str, str], gpg: str | None, cryptography: bool, verdict: str
) -> None:
    document = {"default": [{"type": "reject"}], "transports": {"docker": {"a.example": [requirement]}}}
    policy = parse_policy(json.dumps(document).encode(), "/etc/containers/policy.json")
    assert judge_policy(policy, gpg, cryptography).verdict == verdict


def test_file_systems() -> None:
    mountinfo = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:5 / /home rw,relatime shared:1 - nfs4 server:/home rw\n"
        "3 1 0:6 / /home/my\\040disk rw - xfs /dev/sdb rw\n"
        "4 1 0:7 / /homes rw - btrfs /dev/sdc rw\n"
        "damaged\n"
    )
    for path, expected in (
        ("/", "ext4"), ("/var/x", "ext4"), ("/home", "nfs4"), ("/home/alice", "nfs4"),
        ("/home/my disk/x", "xfs"), ("/homes/x", "btrfs"),
    ):  # fmt: skip
        assert find_file_system(path, mountinfo) == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("ID=debian\n", "sudo apt install uidmap"),
        ("ID=ubuntu\nID_LIKE=debian\n", "sudo apt install uidmap"),
        ('ID="rhel"\nID_LIKE="fedora"\n', "sudo dnf install shadow-utils"),
        ('ID=rocky\nID_LIKE="rhel centos fedora"\n', "sudo dnf install shadow-utils"),
        ("ID=fedora\n", "sudo dnf install shadow-utils"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "sudo zypper install shadow"),
        ("ID=other\n", "install the package shadow-utils"),
        ("", "install the package shadow-utils"),
    ],
)
def test_installation(release: str, expected: str) -> None:
    assert plan_installation("newuidmap", release) == expected


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        InvalidFormat("is no JSON", where="/etc/moon", hint="look up"),
        subprocess.TimeoutExpired("moon", 20),
    ],
)
def test_a_check_that_breaks_is_a_finding(error: Exception) -> None:
    def check_moon_phase(_context: object) -> list[Finding]:
        raise error

    (finding,) = doctor._run(check_moon_phase, None)  # type: ignore[arg-type]
    assert (finding.name, finding.verdict) == ("moon phase", LOST)
    if isinstance(error, InvalidFormat):
        assert (finding.found, finding.mend) == ("cannot be checked: /etc/moon: is no JSON", "look up")


def test_only_what_is_essential_counts() -> None:
    assert not has_missing([fine("a", ""), lost("b", "", "", "")])
    assert has_missing([fine("a", ""), missing("b", "", "")])


def test_rendering() -> None:
    text = render_findings(
        [fine("a", "x\x1b[m"), lost("b", "y", "z", "do it"), lost("c", "y", "z", "do it")], False
    )
    assert text.splitlines() == [
        "fine    a                  x\\x1b[m",
        "lost    b                  y",
        "                           lost: z",
        "                           mend: do it",
        "lost    c                  y",
        "                           lost: z",
        "                           mend: as above",
    ]
    assert "\x1b[32mfine" in render_findings([fine("a", "x")], True)


def test_which_copy_is_set_up() -> None:
    places = plan_places(Scope.USER, {"HOME": "/home/alice"})
    own = Installed("/home/alice/v", "", Copy("/home/alice/v/libexec/usercontainerd", ("/s",)), "1", "3.13")
    record = Record("1", own.prefix, "/s", "/usr/bin/python3", "3.13")
    effect = Effect(None, None, "/x/usercontainerd.service, programs in /home/alice/v")
    whole = Inspection(places, own, record, ())
    assert judge_setup(whole, effect, own.copy.programs).verdict == FINE
    # One prefix may be the end of another.
    assert judge_setup(whole, effect, "/v/libexec/usercontainerd").verdict == LOST
    unset = judge_setup(Inspection(places, own, None, ()), effect, own.copy.programs)
    assert (unset.verdict, "/home/alice/v is not set up" in unset.found) == (Verdict.MISSING, True)
    broken = Inspection(places, own, record, (Problem("missing", "/a"), Problem("old", "/b")))
    found = judge_setup(broken, effect, own.copy.programs)
    assert (found.verdict, found.found) == (LOST, "missing: /a (and 1 more)")
    package = judge_setup(
        Inspection(places, None, None, ()), Effect(None, None, None), "/usr/libexec/usercontainerd"
    )
    assert package.found == "a package of the system"
