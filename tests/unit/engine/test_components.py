"""Versions of other programs, from what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.engine.host import components
from usercontainerd.engine.host.components import ask_version, find_components, name_versions, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("crun version 1.21\ncommit: 10269840aa07fb7e6b7e1acff6198692d8ff5c88\n+SYSTEMD +SECCOMP\n", "1.21"),
        ("pasta 0.0~git20250503.587980c-2+deb13u1\nCopyright Red Hat\n", "0.0~git20250503.587980c-2+deb13u1"),
        ("systemd 257 (257.9-1~deb13u1)\n+PAM +AUDIT\n", "257"),
        ("systemd 252 (252-46.el9_5.3)\n", "252"),
        ("", ""),
        ("crun version", ""),
        ("error: no such option\n", ""),
    ],
)
def test_version(text: str, version: str) -> None:
    assert parse_version(text) == version


def test_one_that_flushes_only_to_a_terminal(tmp_path: Path) -> None:
    program = tmp_path / "pasta"
    program.write_text('#!/bin/sh\n[ -t 1 ] && echo "pasta 2026_01_01.abc"\nexit 0\n')
    program.chmod(0o755)
    assert parse_version(ask_version(str(program), "/run")) == "2026_01_01.abc"
    program.write_text("#!/bin/sh\nexit 0\n")
    assert ask_version(str(program), "/run") == ""


def test_only_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "crun"
    program.write_text('#!/bin/sh\necho "crun version 9.8 in $XDG_RUNTIME_DIR"\n')
    program.chmod(0o755)
    broken = tmp_path / "pasta"
    broken.write_text("#!/nonexistent\n")
    broken.chmod(0o755)
    monkeypatch.setattr(
        components,
        "PROGRAMS",
        {"crun": ("/nonexistent", str(program)), "pasta": (str(broken),), "systemd": ("/nonexistent",)},
    )
    found = find_components("/run")
    assert [each.name for each in found] == ["kernel", "python", "crun", "pasta"]
    assert name_versions(found)["crun"] == "9.8"
    assert name_versions(found)["pasta"] == ""
    assert found[2].path == str(program)
