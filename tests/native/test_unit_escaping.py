"""What we write, systemd reads as it was meant: the judge is the user manager itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from usercontainerd.base import unitfile
from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.unitfile import UnitFile
from usercontainerd.systemd.manager import SERVICE, UNIT, Manager

RUNTIME = os.environ["XDG_RUNTIME_DIR"]
UNITS = Path(RUNTIME, "systemd/user")
BATCH = 100

WORDS = """
; \\ \\\\ \\\\\\ " ' $ $$ ${HOME} $HOME % %% %n %h \\x41 \\u00e4 \\s \\; [Service] -x @x + ! : = {} ~ * ` | ä😀
"""
NASTY = st.one_of(
    st.sampled_from(WORDS.split()),
    st.sampled_from(
        ["", " ", "a b", "\ta", "\r", "\\\n", "# no", "a\nExecStart=/bin/evil", "\x01\x7f\x1b[31m", "\ufeff"]
    ),
    st.text(st.sampled_from("\\\"'$%{};#= \t\n\r-@abc\x1b\x7f\u2028"), max_size=12),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
).filter(unitfile.is_text)
COMPONENT = NASTY.map(lambda text: text.replace("/", "")).filter(lambda text: text not in ("", ".", ".."))


@dataclass(frozen=True)
class Case:
    text: str
    arguments: tuple[str, ...]
    variables: tuple[str, ...]
    path: str


CASES = st.builds(
    Case,
    text=NASTY,
    arguments=st.lists(NASTY, max_size=4).map(tuple),
    variables=st.lists(NASTY, max_size=3).map(tuple),
    path=st.lists(COMPONENT, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts)),
)


@pytest.fixture
def manager() -> Iterator[Manager]:
    UNITS.mkdir(parents=True, exist_ok=True)
    with Manager.connect(RUNTIME) as one:
        yield one
        for path in UNITS.glob("nasty-*"):
            path.unlink()
        one.reload()


def build(case: Case) -> str:
    unit = UnitFile()
    unit.add_comment(case.text)
    unit.add("Unit", "Description", unitfile.render_text(case.text))
    for key, render in (("SourcePath", unitfile.render_path), ("RequiresMountsFor", unitfile.quote_path)):
        try:
            unit.add("Unit", key, render(case.path))
        except InvalidArgument:
            pass
    unit.add("Unit", "StartLimitBurst", "77")
    unit.add("Service", "SyslogIdentifier", unitfile.render_text(case.text))
    for index, value in enumerate(case.variables):
        unit.add("Service", "Environment", unitfile.render_environment(f"V{index}", value))
    unit.add("Service", "ExecStart", unitfile.render_command(("/usr/bin/my program", *case.arguments)))
    unit.add("Service", "ExecStop", unitfile.render_command(("/bin/true",), "-"))
    unit.add("Service", "OOMScoreAdjust", "77")
    return unit.render()


PROPERTIES = [
    *(
        (UNIT, name)
        for name in ("LoadState", "Description", "SourcePath", "RequiresMountsFor", "StartLimitBurst")
    ),
    *(
        (SERVICE, name)
        for name in ("SyslogIdentifier", "Environment", "ExecStart", "ExecStop", "OOMScoreAdjust")
    ),
]


def check(name: str, case: Case, properties: dict[str, Any]) -> None:
    text = unitfile.render_text(case.text).replace("%%", "%")
    assert properties["LoadState"] == "loaded"
    assert properties["Description"] == (text or name)
    assert properties["SyslogIdentifier"] == text
    assert (properties["StartLimitBurst"], properties["OOMScoreAdjust"]) == (77, 77)
    environment = properties["Environment"]
    assert environment == [f"V{index}={value}" for index, value in enumerate(case.variables)]
    ((program, words, *_),) = properties["ExecStart"]
    # $$ becomes $ only when the command is run.
    assert (program, words[1:]) == (
        "/usr/bin/my program",
        [word.replace("$", "$$") for word in case.arguments],
    )
    ((program, _, ignore, *_),) = properties["ExecStop"]
    assert (program, ignore) == ("/bin/true", True)
    for key, render in (("SourcePath", unitfile.render_path), ("RequiresMountsFor", unitfile.quote_path)):
        try:
            render(case.path)
        except InvalidArgument:
            continue
        found = properties[key]
        assert (found if isinstance(found, str) else found[0]) == case.path


def test_systemd_reads_what_was_meant(manager: Manager) -> None:
    """Many units in one go: reloading takes longer than reading."""

    @settings(max_examples=4, phases=(Phase.generate,))  # a batch is slow to shrink
    @given(st.lists(CASES, min_size=BATCH, max_size=BATCH))
    def check_batch(cases: list[Case]) -> None:
        names = [f"nasty-{index}.service" for index in range(len(cases))]
        for name, case in zip(names, cases, strict=True):
            (UNITS / name).write_text(build(case))
        manager.reload()
        wanted = [(name, interface, key) for name in names for interface, key in PROPERTIES]
        values = manager.get_properties(wanted)
        for index, case in enumerate(cases):
            read = values[index * len(PROPERTIES) : (index + 1) * len(PROPERTIES)]
            check(names[index], case, {key: value for (_, key), value in zip(PROPERTIES, read, strict=True)})

    check_batch()


def test_a_command_gets_its_arguments(manager: Manager) -> None:
    """To the end: through the expansion of variables, into the process."""
    output = Path(RUNTIME, "nasty-arguments")
    program = (
        f"import os, sys; open({str(output)!r}, 'wb').write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    )

    @settings(max_examples=20)
    @given(st.lists(NASTY, min_size=1, max_size=40))
    @example(["$", "$$", "${HOME}", "$HOME", "%h", "; /bin/evil", ";", "\\;", "a'b\"c", "$HOME; $A"])
    def run(arguments: list[str]) -> None:
        unit = UnitFile()
        unit.add("Service", "Type", "oneshot")
        command = ("/usr/bin/python3", "-IS", "-c", program, *arguments)
        unit.add("Service", "ExecStart", unitfile.render_command(command))
        (UNITS / "nasty-run.service").write_text(unit.render())
        manager.reload()
        manager.start_unit("nasty-run.service")
        assert output.read_bytes().decode().split("\0") == arguments

    run()
    output.unlink()


def test_variables_reach_the_process(manager: Manager) -> None:
    output = Path(RUNTIME, "nasty-environment")

    @settings(max_examples=10)
    @given(st.lists(NASTY, min_size=1, max_size=20))
    def run(values: list[str]) -> None:
        unit = UnitFile()
        unit.add("Service", "Type", "oneshot")
        for index, value in enumerate(values):
            unit.add("Service", "Environment", unitfile.render_environment(f"NASTY_{index}", value))
        copy = ("/bin/cp", "--no-preserve=all", "/proc/self/environ", str(output))
        unit.add("Service", "ExecStart", unitfile.render_command(copy))
        (UNITS / "nasty-run.service").write_text(unit.render())
        manager.reload()
        manager.start_unit("nasty-run.service")
        entries = output.read_bytes().decode().split("\0")
        assert [f"NASTY_{index}={value}" for index, value in enumerate(values)] == [
            entry for entry in entries if entry.startswith("NASTY_")
        ]

    run()
    output.unlink()


@given(st.lists(NASTY.filter(lambda text: text not in ("", "/")), min_size=30, max_size=30))
@settings(max_examples=4)
def test_unit_names(texts: list[str]) -> None:
    run = subprocess.run(["systemd-escape", "--", *texts], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip("\n").split(" ") == [unitfile.escape_unit_name(text) for text in texts]
