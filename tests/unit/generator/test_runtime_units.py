"""Units in a directory that is not the generator's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from usercontainerd.generator import units_program
from usercontainerd.generator.entry import Entry
from usercontainerd.generator.runtime_units import plan_wishes, write_runtime_units
from usercontainerd.generator.units_program import find_drop_ins, main, render_watched

WANTS = "default.target.wants/container@a.service"


def entry(name: str, text: str = "[Service]\n", *links: str) -> Entry:
    return Entry(name, "", f"# Generated from /d/{name}.toml\n{text}", links)


def read(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in directory.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_only_differences_are_written(tmp_path: Path) -> None:
    units = tmp_path / "systemd/user"
    first = [entry("a", "x", WANTS, "alias.service"), entry("b")]
    assert write_runtime_units(str(units), first, {}).changed
    assert read(units) == {
        "container@a.service": "# Generated from /d/a.toml\nx",
        "container@b.service": "# Generated from /d/b.toml\n[Service]\n",
        WANTS: "../container@a.service",
        "alias.service": "container@a.service",
    }
    inode = (units / "container@a.service").stat().st_ino
    again = write_runtime_units(str(units), first, {})
    assert not again.changed
    assert not again.failures
    assert (units / "container@a.service").stat().st_ino == inode
    assert write_runtime_units(str(units), [entry("a", "y")], {}).changed
    assert read(units) == {"container@a.service": "# Generated from /d/a.toml\ny"}
    assert write_runtime_units(str(units), [], {}).changed
    assert list(units.iterdir()) == []


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    (tmp_path / "default.target.wants").mkdir()
    (tmp_path / "container@masked.service").symlink_to("/dev/null")
    (tmp_path / "container@mine.service").write_text("[Service]\n")
    (tmp_path / "other.service").write_text("# Generated from /d/other.toml\n")
    (tmp_path / "default.target.wants/container@c.service").symlink_to("/home/a/container@c.service")
    (tmp_path / "default.target.wants/x.service").symlink_to("../x.service")
    before = read(tmp_path)
    written = write_runtime_units(str(tmp_path), [entry("masked"), entry("mine")], {})
    assert not written.changed
    assert not written.failures
    assert read(tmp_path) == before
    assert not write_runtime_units(str(tmp_path), [], {}).changed
    assert read(tmp_path) == before


def test_one_that_cannot_be_written_harms_no_other(tmp_path: Path) -> None:
    (tmp_path / "container@a.service").mkdir()
    written = write_runtime_units(str(tmp_path), [entry("a"), entry("b")], {})
    assert written.changed
    assert len(written.failures) == 1
    assert "container@a.service" in written.failures[0]
    assert (tmp_path / "container@b.service").exists()


def test_wishes() -> None:
    entries = [
        entry("a", "x", WANTS, "alias.service", "x.target.requires/container@a.service"),
        Entry("b", "", "", (WANTS,)),
    ]
    assert list(plan_wishes(entries)) == [
        ("default.target", "container@a.service"),
        ("x.target", "container@a.service"),
    ]


def test_drop_ins_are_watched(tmp_path: Path) -> None:
    for name in ("b.toml.d", "a%.toml.d", "a.toml", "bad\n.toml.d"):
        (tmp_path / name).mkdir()
    found = find_drop_ins([str(tmp_path), "/no/such"])
    assert render_watched(found) == (
        f"[Path]\nPathChanged={tmp_path}/a%%.toml.d\nPathChanged={tmp_path}/b.toml.d\n"
    )
    assert render_watched([]) == ""


def test_write_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": f"{tmp_path}/run"}
    definitions = tmp_path / ".config/usercontainerd/containers"
    (definitions / "a.toml.d").mkdir(parents=True)
    (definitions / "a.toml").write_text('image = "x"\ninstall.wanted_by = ["default.target"]\n')
    (definitions / "b.toml").write_text("image = 1\n")
    assert main(["--only-write"], environment) == 1
    assert "no systemd of this user" in capsys.readouterr().err
    (tmp_path / "run/systemd").mkdir(parents=True)
    units = tmp_path / "run/systemd/user"
    monkeypatch.setattr(units_program, "find_generator", lambda: None)
    assert main(["--only-write"], environment) == 0
    assert set(read(units)) == {
        "container@a.service",
        "container@b.service",
        WANTS,
        "usercontainerd-units.path.d/drop-ins.conf",
    }
    # As soon as there is a generator, it has the field.
    monkeypatch.setattr(units_program, "find_generator", lambda: "/usr/lib/x")
    assert main(["--only-write"], environment) == 0
    assert read(units) == {}


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x"], {}) == 2
    assert "usage" in capsys.readouterr().err
