"""The conversion of containers-common's seccomp profile."""

import json
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.runtime.seccomp import convert_profile, parse_kernel_version, read_profile

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "defaultErrno": "ENOSYS",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["mount"],
            "action": "SCMP_ACT_ERRNO",
            "errno": "EPERM",
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            "errnoRet": 22,
        },
    ],
}


def names(
    machine: str, capabilities: tuple[str, ...], kernel: tuple[int, int] = (6, 1)
) -> list[tuple[str, str]]:
    section = convert_profile(PROFILE, machine=machine, capabilities=capabilities, kernel=kernel)
    return [(rule["names"][0], rule["action"].removeprefix("SCMP_ACT_")) for rule in section["syscalls"]]


def test_rules_by_architecture_capability_and_kernel() -> None:
    assert ("arch_prctl", "ALLOW") in names("x86_64", ())
    assert ("arch_prctl", "ALLOW") not in names("aarch64", ())
    assert ("mount", "ERRNO") in names("x86_64", ())
    assert ("mount", "ALLOW") not in names("x86_64", ())
    assert ("mount", "ALLOW") in names("x86_64", ("CAP_SYS_ADMIN",))
    assert ("mount", "ERRNO") not in names("x86_64", ("CAP_SYS_ADMIN",))
    assert ("ptrace", "ALLOW") not in names("x86_64", (), (4, 7))
    assert ("ptrace", "ALLOW") in names("x86_64", (), (4, 8))


def test_numbers_arguments_and_architectures() -> None:
    section = convert_profile(PROFILE, machine="x86_64", capabilities=(), kernel=(6, 1))
    assert section["defaultErrnoRet"] == 38
    assert section["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    rules = {(rule["names"][0], rule["action"]): rule for rule in section["syscalls"]}
    assert rules["mount", "SCMP_ACT_ERRNO"]["errnoRet"] == 1
    assert rules["socket", "SCMP_ACT_ERRNO"]["errnoRet"] == 22
    assert rules["socket", "SCMP_ACT_ERRNO"]["args"] == [
        {"index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    ]
    assert "args" not in rules["read", "SCMP_ACT_ALLOW"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": 1}', "[" * 100000])
def test_files_that_are_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seccomp.json"
    path.write_text(text, encoding="ascii")
    with pytest.raises(InvalidFormat, match="seccomp"):
        read_profile(str(path))


def test_a_profile_is_read(tmp_path: Path) -> None:
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(PROFILE), encoding="ascii")
    assert read_profile(str(path)) == PROFILE


@pytest.mark.parametrize(
    ("release", "expected"), [("6.18.44-fc-v669", (6, 18)), ("5.14.0", (5, 14)), ("7.2um1", (7, 2))]
)
def test_kernel_versions(release: str, expected: tuple[int, int]) -> None:
    assert parse_kernel_version(release) == expected
