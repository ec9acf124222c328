"""doctor and SELinux: labels of the store, and the commands that mend them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from usercontainerd.engine.host import selinux_checks
from usercontainerd.engine.host.doctor import Verdict
from usercontainerd.engine.host.selinux_checks import (
    READ_ONLY,
    TYPES,
    WRITABLE,
    escape_pattern,
    has_policy,
    judge_labels,
    parse_type,
    plan_relabelling,
    read_labels,
)
from usercontainerd.store.layout import DIRECTORIES

USUAL = "/home/alice/.local/share/usercontainerd"
TOP = Path(__file__).parents[3]
GOOD = {**TYPES, "layers/ab/diff": READ_ONLY, "volumes/v/_data": WRITABLE}


def read_policy(kind: str) -> str:
    return (TOP / f"packaging/selinux/usercontainerd.{kind}").read_text(encoding="utf-8")


def test_types_are_those_of_the_policy() -> None:
    contexts = re.findall(
        r"^HOME_DIR\S*/usercontainerd/(\w+)\(/\.\*\)\?\s+\S*?:object_r:(\w+),s0", read_policy("fc"), re.M
    )
    assert dict(contexts) == TYPES
    transitions = re.findall(r'usercontainerd_home_t:dir (\w+) "(\w+)";', read_policy("te"))
    assert {name: kind for kind, name in transitions} == TYPES


def test_directories_are_those_of_the_store() -> None:
    assert set(TYPES) <= {*DIRECTORIES, "containers", "volumes"}


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (b"unconfined_u:object_r:data_home_t:s0\0", "data_home_t"),
        (b"system_u:object_r:container_file_t:s0:c1,c2", "container_file_t"),
        (b"unlabeled\0", ""),
        (b"", ""),
    ],
)
def test_parse_type(label: bytes, kind: str) -> None:
    assert parse_type(label) == kind


def test_good_labels() -> None:
    assert judge_labels(GOOD, USUAL, USUAL, has_policy=True).verdict == Verdict.FINE
    assert judge_labels({}, USUAL, USUAL, has_policy=False).verdict == Verdict.FINE


def test_good_labels_that_nothing_would_give_again() -> None:
    finding = judge_labels(GOOD, USUAL, USUAL, has_policy=False)
    assert finding.verdict == Verdict.LOST
    assert "no rules" in finding.found
    assert finding.mend == plan_relabelling(USUAL, USUAL, has_policy=False)


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("kind", ["data_home_t", "", "user_home_t"])
def test_wrong_labels_are_named(path: str, kind: str) -> None:
    finding = judge_labels({**GOOD, path: kind}, USUAL, USUAL, has_policy=True)
    assert finding.verdict == Verdict.LOST
    assert f"{USUAL}/{path} is {kind or 'not labelled'}, not {GOOD[path]}" in finding.found
    assert finding.mend == f"sudo restorecon -R {USUAL}"


def test_a_read_only_type_is_no_writable_one() -> None:
    finding = judge_labels({**GOOD, "volumes/v/_data": READ_ONLY}, USUAL, USUAL, has_policy=True)
    assert finding.verdict == Verdict.LOST


def test_a_store_elsewhere_is_made_equivalent() -> None:
    commands = plan_relabelling("/data/my store", USUAL, has_policy=True)
    assert commands == (
        f"sudo semanage fcontext -a -e {USUAL} '/data/my store' && sudo restorecon -R '/data/my store'"
    )


def test_without_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux_checks, "suggest_installation", lambda package: f"sudo dnf install {package}")
    assert plan_relabelling(USUAL, USUAL, has_policy=False) == (
        f"sudo dnf install usercontainerd-selinux && sudo restorecon -R {USUAL}"
    )
    monkeypatch.setattr(selinux_checks, "suggest_installation", lambda package: f"sudo apt install {package}")
    commands = plan_relabelling(USUAL, USUAL, has_policy=False)
    assert (
        r"-t container_ro_file_t '/home/alice/\.local/share/usercontainerd/(layers|tmp|trash|containers)(/.*)?'"
        in commands
    )
    assert r"-t container_file_t '/home/alice/\.local/share/usercontainerd/volumes(/.*)?'" in commands
    assert commands.endswith(f"sudo restorecon -R {USUAL}")


def test_patterns_match_only_the_path() -> None:
    path = "/home/a.b+c (x)[y]{z}|^$?*\\"
    assert re.fullmatch(escape_pattern(path), path)
    assert not re.fullmatch(escape_pattern("/a.b"), "/axb")


def test_reads_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layers/ab/diff", "layers/cd/diff", "layers/.new-x", "volumes/v/_data", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    labels = {"layers": READ_ONLY, "layers/ab/diff": "data_home_t", "volumes": WRITABLE}

    def getxattr(path: str, name: str) -> bytes:
        assert name == "security.selinux"
        os.stat(path)
        kind = labels.get(os.path.relpath(path, tmp_path))
        if kind is None:
            raise OSError(61, "No data available")
        return f"unconfined_u:object_r:{kind}:s0\0".encode()

    monkeypatch.setattr(os, "getxattr", getxattr)
    found = read_labels(str(tmp_path))
    assert found == {**labels, "layers/cd/diff": "", "tmp": "", "volumes/v/_data": ""}


def test_policy_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "config"
    monkeypatch.setattr(selinux_checks, "CONFIGURATION", str(configuration))
    configuration.write_text("SELINUX=enforcing\nSELINUXTYPE=../.." + str(tmp_path) + "\n")
    assert not has_policy()
    files = tmp_path / "contexts/files"
    files.mkdir(parents=True)
    homes = files / "file_contexts.homedirs"
    homes.write_text("/home/[^/]+/.+ unconfined_u:object_r:user_home_t:s0\n")
    assert not has_policy()
    with homes.open("a") as file:
        file.write(
            r"/home/[^/]+/\.local/share/usercontainerd/layers(/.*)? unconfined_u:object_r:container_ro_file_t:s0"
            "\n"
        )
    assert has_policy()


def test_rules_of_an_administrator_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that docs/selinux.md has for hosts without the module."""
    configuration = tmp_path / "config"
    configuration.write_text(f"SELINUXTYPE=../..{tmp_path}\n")
    monkeypatch.setattr(selinux_checks, "CONFIGURATION", str(configuration))
    monkeypatch.setattr(selinux_checks, "suggest_installation", lambda package: f"sudo apt install {package}")
    (tmp_path / "contexts/files").mkdir(parents=True)
    local = tmp_path / "contexts/files/file_contexts.local"
    advice = plan_relabelling(USUAL, USUAL, has_policy=False)
    lines = re.findall(r"-t (\w+) '(\S+)'", advice)
    local.write_text("".join(f"{path} system_u:object_r:{kind}:s0\n" for kind, path in lines[1:]))
    assert not has_policy()
    local.write_text("".join(f"{path} system_u:object_r:{kind}:s0\n" for kind, path in lines))
    assert has_policy()
