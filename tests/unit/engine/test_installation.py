"""What is rewritten on the way from the sources to where they are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.setup.installation import (
    RULES,
    SOURCES,
    Copy,
    Kind,
    render_file,
    render_program,
    render_shebang,
    render_unit,
    select_names,
)

TOP = Path(__file__).resolve().parents[3]
PROGRAMS = sorted([*(TOP / "libexec").iterdir(), *(TOP / "bin").iterdir()])


def test_no_two_files_meet_in_one_place() -> None:
    listing = {source: os.listdir(TOP / source) for source in SOURCES if (TOP / source).is_dir()}
    targets = [
        f"{rule.target}/{name}" for rule in RULES for name in select_names(rule, listing.get(rule.source, ()))
    ]
    assert len(targets) == len(set(targets))
    assert "lib/systemd/user/container@.service" in targets
    assert "lib/systemd/user-generators/usercontainerd-generator" in targets


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_program_takes_its_locations(path: Path) -> None:
    text = render_program(path.read_bytes(), ["/a/site-packages", "/b/site-packages"]).decode()
    assert text.startswith("#!/usr/bin/python3 -IS\n")
    assert 'sys.path[:0] = ["/a/site-packages", "/b/site-packages"]  # location of the package\n' in text
    assert "only in a checkout" not in text
    compile(text, path.name, "exec")
    one = render_program(path.read_bytes(), ['/odd "\\ \xe9'])
    assert b'sys.path.insert(0, "/odd \\"\\\\ \\xe9")' in one
    compile(one, path.name, "exec")


@pytest.mark.parametrize("directory", ["plain", "with blanks in it", "long" * 40, "caf\xe9"])
def test_a_program_runs_by_any_interpreter(tmp_path: Path, directory: str) -> None:
    interpreter = tmp_path / directory / "bin/python3"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    source = b'#!/usr/bin/python3 -IS\n"""Text."""\nimport sys\n\nprint(sys.flags.isolated, sys.argv[1:])\n'
    program = tmp_path / "program"
    program.write_bytes(render_program(source, [], str(interpreter)))
    program.chmod(0o755)
    result = subprocess.run([program, "a b", "$c"], capture_output=True, text=True, check=True)
    assert result.stdout == "1 ['a b', '$c']\n"


@pytest.mark.parametrize(
    "path", ["python3", "/a'b/python3", '/a"/python3', "/$HOME/python3", "/a\n/python3", "/a\\/p"]
)
def test_what_no_script_can_name_is_an_error(path: str) -> None:
    with pytest.raises(InvalidArgument):
        render_shebang(path, "-IS")


def test_units_name_the_programs_of_their_copy() -> None:
    for path in (TOP / "units").rglob("*.*"):
        text = path.read_text()
        assert render_unit(text, "/usr/libexec/usercontainerd") == text
        moved = render_unit(text, "/home/a b/50%/libexec/usercontainerd")
        assert "/usr/libexec" not in moved
        for line in moved.splitlines():
            if "libexec" in line:
                assert '"/home/a b/50%%/libexec/usercontainerd/' in line
    text = (TOP / "units/usercontainerd-failed@.service").read_text()
    assert "\nExecStart=-/x/libexec/usercontainerd/notify-failure %i\n" in render_unit(
        text, "/x/libexec/usercontainerd"
    )


def test_a_job_killed_for_memory_does_not_end_the_service() -> None:
    """By default systemd would stop it, and with it all other jobs."""
    assert "OOMPolicy=continue" in (TOP / "units/usercontainerd.service").read_text().splitlines()


def test_other_files_stay_as_they_are() -> None:
    copy = Copy("/x", ("/y",), "/z")
    for rule in RULES:
        if rule.kind in (Kind.MANUAL, Kind.BUS_SERVICE, Kind.INTERFACE, Kind.COMPLETION):
            assert render_file(rule, b"/usr/libexec/usercontainerd/launch\n", copy) == (
                b"/usr/libexec/usercontainerd/launch\n"
            )
