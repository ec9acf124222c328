"""``usercontainer setup``: what it says; what it does is in tests/unit/engine and tests/machine/test_pip.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli import setup as module
from usercontainerd.cli.call import Call
from usercontainerd.cli.options import parse_options
from usercontainerd.cli.setup import SETUP, render_summary, run_setup
from usercontainerd.engine.setup import check as setup_check
from usercontainerd.engine.setup.check import Inspection, Problem
from usercontainerd.engine.setup.placing import Act, Step
from usercontainerd.engine.setup.plan import Scope, plan_places
from usercontainerd.engine.setup.record import Record


def call(tmp_path: Path, *words: str) -> Call:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    return Call("setup", parse_options(SETUP, list(words)), environment)


def test_a_summary() -> None:
    steps = [Step(Act.WRITE, "/a"), Step(Act.WRITE, "/b"), Step(Act.LINK, "/c"), Step(Act.KEEP, "/d")]
    assert render_summary(steps, "/p") == "/p: 2 written, 1 enabled.\nleft, since it was changed: /d\n"
    assert render_summary([], "/p") == "/p: everything is in place.\n"


def test_one_thing_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="exclude each other"):
        run_setup(call(tmp_path, "--check", "--remove"))


@pytest.mark.parametrize("words", [(), ("--check",)])
def test_a_checkout_is_not_to_be_set_up(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="this is a checkout"):
        run_setup(call(tmp_path, *words))


def test_a_package_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for where in (module, setup_check):
        monkeypatch.setattr(where, "is_system_package", lambda: True)
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert run_setup(call(tmp_path)) == 0
    assert "nothing to do" in capfd.readouterr().out
    assert run_setup(call(tmp_path, "--check")) == 0
    assert "set up: by a package of the system\n" in capfd.readouterr().out
    assert run_setup(call(tmp_path, "--remove")) == 0
    assert "Nothing is set up here" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("user", "hint"), [(1000, "`sudo /opt/v/bin/usercontainer setup`"), (0, "`usercontainer setup`")]
)
def test_what_root_has_set_up_root_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], user: int, hint: str
) -> None:
    found = Inspection(
        plan_places(Scope.SYSTEM, {}),
        None,
        Record("1", "/opt/v", "/opt/v/lib", "/usr/bin/python3", "3.13"),
        (Problem("missing", "/opt/v/libexec"),),
    )
    monkeypatch.setattr(module, "inspect_setup", lambda *_: found)
    monkeypatch.setattr("os.getuid", lambda: user)
    assert run_setup(call(tmp_path, "--check")) == 1
    told = capfd.readouterr()
    assert hint in told.err
    assert "missing: /opt/v/libexec\n" in told.out
