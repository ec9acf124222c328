"""The generator on directories of its own; what systemd makes of the result is tested natively."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.definition.reader import load_definition
from usercontainerd.engine.context import build_context
from usercontainerd.engine.definitions import definition_directories
from usercontainerd.generator import conversion, inputs
from usercontainerd.generator.cache import Cached, parse_cache, read_cache, render_cache
from usercontainerd.generator.entry import Entry
from usercontainerd.generator.output import write_units
from usercontainerd.generator.program import generate, main

TOP = Path(__file__).resolve().parents[3]
GOOD = 'image = "nginx"\n[install]\nwanted_by = "default.target"\n'


class Home:
    """A user's directories."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {"HOME": str(path), "XDG_RUNTIME_DIR": f"{path}/run", "USER": "alice"}
        self.paths = Paths.from_environment(self.environment, os.getuid())
        self.definitions = Path(self.paths.definition_directories[0])
        self.definitions.mkdir(parents=True)
        self.runs = 0

    def define(self, name: str, text: str = GOOD) -> None:
        path = self.definitions / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def generate(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in generate(self.environment, os.getuid(), find_programs())}

    def settle(self) -> None:
        time.sleep(inputs.SETTLED / 1e9 + 0.01)

    def run(self) -> tuple[Path, str]:
        """Run the program itself; return its directory and what it says."""
        self.runs += 1
        out = self.path / f"out{self.runs}"
        out.mkdir()
        command = [
            sys.executable,
            "-IS",
            f"{TOP}/libexec/usercontainerd-generator",
            str(out),
            "early",
            "late",
        ]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return out, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_units_and_links(home: Home) -> None:
    home.define("app.toml")
    home.define("plain.toml", 'image = "x"')
    home.define("app.toml.d/10-more.toml", '[unit]\nafter = ["b.service"]')
    out, said = home.run()
    assert said == ""
    assert sorted(entry.name for entry in out.iterdir()) == [
        "container@app.service",
        "container@plain.service",
        "default.target.wants",
    ]
    link = out / "default.target.wants/container@app.service"
    assert os.readlink(link) == "../container@app.service"
    assert "After=b.service\n" in link.read_text()
    assert "          with" in link.read_text()


def test_a_broken_one_harms_no_other(home: Home) -> None:
    home.define("app.toml")
    home.define("bad.toml", "image = 1\nmemry = 2\n")
    home.define("worse.toml", "[[[")
    home.define("no good name.toml")
    (home.definitions / "gone.toml").symlink_to("/nonexistent")
    (home.definitions / "masked.toml").symlink_to("/dev/null")
    (home.definitions / "directory.toml").mkdir()
    out, said = home.run()
    assert sorted(path.name for path in out.glob("*.service")) == [
        f"container@{name}.service" for name in ("app", "bad", "directory", "gone", "worse")
    ]
    text = (out / "container@bad.service").read_text()
    assert f"#   {home.definitions}/bad.toml:1: error: image: must be a string" in text
    assert "renew-unit bad\n" in text
    assert f"usercontainerd-generator: {home.definitions}/no good name.toml: error: the file" in said
    assert f"{home.definitions}/bad.toml:2: error: memry: unknown key" in said


def test_how_a_container_ended_is_forgotten_with_its_definition(home: Home) -> None:
    for name in ("app.toml", "masked.toml", "web@.toml"):
        home.define(name, "" if name == "masked.toml" else GOOD)
    records = {
        name: Path(home.paths.container_data(name)) / "exit" for name in ("app", "masked", "web@a", "gone")
    }
    for record in records.values():
        record.parent.mkdir(parents=True)
        record.write_text("x")
    (records["gone"].parent / "layer").mkdir()
    home.generate()
    assert {name for name, record in records.items() if record.exists()} == {"app", "masked", "web@a"}
    assert (records["gone"].parent / "layer").exists()
    home.settle()
    home.generate()
    (home.definitions / "app.toml").unlink()
    home.generate()
    assert not records["app"].exists()


def test_what_was_created_comes_last(home: Home) -> None:
    created = Path(home.paths.created_definitions)
    created.mkdir(parents=True)
    (created / "app.toml").write_text('image = "created"')
    (created / "other.toml").write_text('image = "created"')
    home.define("app.toml", 'image = "defined"')
    entries = home.generate()
    assert "(defined)" in entries["app"].text
    assert "(created)" in entries["other"].text


def test_directories_are_the_engines(home: Home) -> None:
    context = build_context(home.environment, find_programs(), os.getuid(), os.getgid())
    assert definition_directories(context) == (
        *home.paths.definition_directories,
        home.paths.created_definitions,
        home.paths.passing_definitions,
    )


@pytest.mark.parametrize("how", ["own drop-in", "wanted", "started before", "default"])
def test_instances_of_a_template(home: Home, how: str) -> None:
    default = 'default_instance = "blue"\n' if how == "default" else ""
    home.define(
        "web@.toml", f'image = "nginx"\n[service]\nnice = 5\n[install]\nwanted_by = "a.target"\n{default}'
    )
    if how == "own drop-in":
        home.define("web@blue.toml.d/x.toml", 'hostname = "blue"')
    elif how == "wanted":
        wants = home.path / ".config/systemd/user/default.target.wants"
        wants.mkdir(parents=True)
        (wants / "container@web@blue.service").symlink_to("/usr/lib/systemd/user/container@.service")
        (wants / "container@other@blue.service").symlink_to("/usr/lib/systemd/user/container@.service")
        (wants / "container@plain.service").symlink_to("/usr/lib/systemd/user/container@.service")
    elif how == "started before":
        notes = Path(inputs.instances_directory(home.paths.runtime))
        notes.mkdir(parents=True)
        for name in ("web@blue", "gone@blue", "web", ".hidden"):
            (notes / name).touch()
    entries = home.generate()
    assert [name for name, entry in entries.items() if entry.text] == ["web@blue"]
    assert "launch web@blue\n" in entries["web@blue"].text
    assert "Nice=5\n" in entries["web@blue"].text
    assert entries["web@blue"].links == ("a.target.wants/container@web@blue.service",)
    home.settle()
    home.generate()
    again = home.generate()
    assert [(name, entry.text) for name, entry in again.items()] == [(n, e.text) for n, e in entries.items()]


def test_a_broken_template_is_told(home: Home) -> None:
    home.define("web@.toml", "image = 1")
    out, said = home.run()
    assert list(out.iterdir()) == []
    assert "web@.toml:1: error: image" in said


def test_nothing_is_read_when_nothing_changed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.define("app.toml")
    home.settle()
    first = home.generate()
    monkeypatch.setattr(conversion, "convert_all", None)
    assert home.generate() == first


def test_only_what_changed_is_read_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.define("app.toml")
    home.define("other.toml")
    home.settle()
    home.generate()
    home.define("other.toml", 'image = "other"')
    read = []

    def count(found, owner):  # type: ignore[no-untyped-def]
        read.append(found.name)
        return load_definition(found, owner)

    monkeypatch.setattr(conversion, "load_definition", count)
    assert "(other)" in home.generate()["other"].text
    assert read == ["other"]


def test_a_file_that_changes_within_one_tick_is_not_relied_upon(home: Home) -> None:
    home.define("app.toml", 'image = "aaa"')
    home.generate()
    home.define("app.toml", 'image = "bbb"')
    times = (0, 0)
    os.utime(home.definitions / "app.toml", ns=times)
    assert "(bbb)" in home.generate()["app"].text


@pytest.mark.parametrize(
    "change",
    ["edit", "add", "remove", "drop-in", "edit drop-in", "mask", "environment", "created", "instance"],
)
def test_every_change_is_seen(home: Home, change: str) -> None:
    home.define("app.toml")
    home.define("app.toml.d/a.toml", 'hostname = "a"')
    home.define("web@.toml")
    home.settle()
    before = home.generate()
    assert read_cache(f"{home.paths.cache}/units") is not None
    if change == "edit":
        home.define("app.toml", 'image = "edited"')
    elif change == "add":
        home.define("new.toml")
    elif change == "remove":
        (home.definitions / "app.toml").unlink()
    elif change == "drop-in":
        home.define("app.toml.d/b.toml", 'description = "from a drop-in"')
    elif change == "edit drop-in":
        home.define("app.toml.d/a.toml", 'description = "from a drop-in"')
    elif change == "mask":
        home.define("app.toml", "")
    elif change == "environment":
        home.environment["HOME"] = str(home.path / ".")
        home.environment["USER"] = "bob"
    elif change == "created":
        os.makedirs(home.paths.created_definitions)
        Path(home.paths.created_definitions, "made.toml").write_text(GOOD)
    elif change == "instance":
        os.makedirs(inputs.instances_directory(home.paths.runtime))
        Path(inputs.instances_directory(home.paths.runtime), "web@blue").touch()
    after = home.generate()
    assert after != before or change == "environment"


def test_code_is_part_of_the_basis() -> None:
    stamps = inputs.stamp_code(f"{TOP}/usercontainerd")
    assert "systemd/unit.py" in stamps
    assert "definition/toml_reader.py" in stamps


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty", "directory", "link", "writable"])
def test_a_damaged_cache_is_ignored(home: Home, damage: str) -> None:
    home.define("app.toml")
    home.settle()
    expected = home.generate()
    path = Path(home.paths.cache, "units")
    data = path.read_bytes()
    path.unlink()
    if damage == "truncate":
        path.write_bytes(data[:-2])
    elif damage == "garbage":
        path.write_bytes(os.urandom(len(data)))
    elif damage == "empty":
        path.touch()
    elif damage == "directory":
        path.mkdir()
    elif damage == "link":
        other = path.with_name("other")
        other.write_bytes(data.replace(b"nginx", b"xxxxx"))
        path.symlink_to(other)
    elif damage == "writable":
        path.write_bytes(data.replace(b"nginx", b"xxxxx"))
        path.chmod(0o622)
    assert home.generate() == expected


def test_no_place_for_a_cache(home: Home) -> None:
    Path(home.paths.cache).parent.mkdir()
    Path(home.paths.cache).touch()
    home.define("app.toml")
    assert list(home.generate()) == ["app"]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
LINE = TEXT.filter(lambda text: text != "" and "\n" not in text)
LINK = st.sampled_from(["a.target.wants/container@x.service", "y@x.service"])
ENTRIES = st.builds(
    Entry,
    name=st.sampled_from(["app", "web@", "web@blue", ""]),
    key=TEXT,
    text=TEXT,
    links=st.lists(LINK).map(tuple),
    log=st.lists(LINE).map(tuple),
)


@given(TEXT, TEXT, st.lists(ENTRIES))
def test_cache_round_trip(basis: str, state: str, entries: list[Entry]) -> None:
    data = render_cache(Cached(basis, state, entries))
    assert data is not None
    parsed = parse_cache(data)
    assert parsed is not None
    assert (parsed.basis, parsed.state, list(parsed.entries)) == (basis, state, entries)


@given(st.binary())
def test_any_bytes_as_a_cache(data: bytes) -> None:
    assert parse_cache(data) is None


@pytest.mark.parametrize("link", ["/etc/x", "../x", "a/../x", "a/b/c", "a/", ".x", ""])
def test_a_cache_leads_nowhere_else(link: str) -> None:
    data = render_cache(Cached("", "", [Entry("app", "", "", ("good.service", link))]))
    assert data is None or parse_cache(data) is None or link == ""
    assert parse_cache(render_cache(Cached("", "", [Entry("../x", "", "")])) or b"") is None


def test_what_cannot_be_kept() -> None:
    assert render_cache(Cached("a\0b", "", [])) is None
    assert render_cache(Cached("\udcff", "", [])) is None


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "container@app.service").symlink_to("/etc/passwd")
    failures = write_units(
        str(tmp_path), [Entry("app", "", "x"), Entry("b", "", "y", ("t.wants/u", "t.wants/u"))]
    )
    assert len(failures) == 1
    assert "container@app.service: cannot be written: File exists" in failures[0]
    assert (tmp_path / "container@b.service").read_text() == "y"


@pytest.mark.parametrize("by_systemd", [True, False])
def test_a_unit_made_in_the_meantime_gives_way(home: Home, by_systemd: bool) -> None:
    created, units = Path(home.paths.created_definitions), Path(home.paths.runtime_units)
    created.mkdir(parents=True)
    units.mkdir(parents=True)
    (created / "app.toml").write_text(GOOD)
    marker = f"# Generated from {created}/"
    (units / "container@app.service").write_text(f"{marker}app.toml\n")
    (units / "container@new.service").write_text(f"{marker}new.toml\n")
    (units / "other.service").write_text(f"{marker}app.toml\n")
    out = Path(home.paths.runtime_root, "systemd/generator") if by_systemd else home.path / "out"
    out.mkdir(parents=True)
    assert main([str(out)], home.environment) == 0
    left = {path.name for path in units.iterdir()}
    assert left == {"container@new.service", "other.service"} | (
        set() if by_systemd else {"container@app.service"}
    )


def test_systemd_of_the_system_gets_nothing(home: Home, tmp_path: Path) -> None:
    home.define("app.toml")
    out = tmp_path / "system"
    out.mkdir()
    assert main([str(out)], {**home.environment, "SYSTEMD_SCOPE": "system"}) == 0
    assert list(out.iterdir()) == []


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    assert "usage" in capsys.readouterr().err


def test_a_bug_is_contained(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.define("app.toml")
    home.define("other.toml")

    def fail(found, owner):  # type: ignore[no-untyped-def]
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(conversion, "load_definition", fail)
    entries = home.generate()
    assert "internal error: ZeroDivisionError('oh')" in entries["app"].text


def test_imports_of_the_fast_path(home: Home) -> None:
    """With a current cache, neither TOML nor the model is touched."""
    home.define("app.toml")
    home.settle()
    home.generate()
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r}); from usercontainerd.generator.program import generate;"
        "from usercontainerd.base.programs import find_programs; import os;"
        "assert [e.name for e in generate(os.environ, os.getuid(), find_programs())] == ['app'];"
        "print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-IS", "-c", code], env=home.environment, capture_output=True, text=True, check=True
    )
    modules = set(run.stdout.split())
    heavy = {
        "tomllib",
        "dataclasses",
        "enum",
        "re",
        "json",
        "typing",
        "socket",
        "pathlib",
        "subprocess",
        "argparse",
    }
    assert not modules & heavy
    assert {
        name.removeprefix("usercontainerd.") for name in modules if name.startswith("usercontainerd.")
    } == {
        "base",
        "base.errors",
        "base.names",
        "base.paths",
        "base.programs",
        "generator",
        "generator.cache",
        "generator.entry",
        "generator.inputs",
        "generator.output",
        "generator.program",
    }
