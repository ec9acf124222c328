"""A definition and its drop-ins."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.definition.owner import DIRECTORY, OWNER
from usercontainerd.definition.diagnostic import Diagnostic
from usercontainerd.definition.model import Definition
from usercontainerd.definition.toml_reader import SourceText, parse_definition, parse_table

BASE = """
image = "busybox"
command = ["a", "b"]
ports = ["8080:80", "8081:81"]
mounts = ["./a:/a", "b:/b"]
environment_files = "one.env"
[environment]
A = "1"
B = "2"
[resources]
memory = "1G"
pids = 5
[security]
add_capabilities = ["NET_RAW"]
[unit]
After = ["a.service", "b.service"]
[service]
RestartSec = 5
[install]
wanted_by = ["default.target"]
"""


def read(*texts: str) -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    paths = [f"{DIRECTORY}/web.toml", *(f"/etc/web.toml.d/{n}.toml" for n in range(1, len(texts)))]
    return parse_definition("web", [SourceText(p, t) for p, t in zip(paths, texts, strict=True)], OWNER)


def merge(*texts: str) -> Any:
    definition, diagnostics = read(BASE, *texts)
    assert diagnostics == ()
    return definition


def test_sources_are_named_in_order() -> None:
    assert merge("", "").sources == (
        f"{DIRECTORY}/web.toml",
        "/etc/web.toml.d/1.toml",
        "/etc/web.toml.d/2.toml",
    )


def test_single_values_and_commands_are_replaced() -> None:
    definition = merge('image = "alpine"\ncommand = ["c"]', 'image = "debian"')
    assert (definition.image, definition.command) == ("debian", ("c",))


def test_tables_are_merged_by_key() -> None:
    definition = merge('[environment]\nB = "3"\nC = "4"\n[resources]\nmemory = "2G"')
    assert definition.environment == (("A", "1"), ("B", "3"), ("C", "4"))
    assert (definition.resources.memory, definition.resources.pids) == (2**31, 5)


def test_lists_grow_and_an_empty_one_takes_back() -> None:
    grown = merge(
        'environment_files = ["/two.env"]\n[security]\nadd_capabilities = ["SYS_PTRACE", "net_raw"]'
    )
    assert grown.environment_files == (f"{DIRECTORY}/one.env", "/two.env")
    assert grown.security.add_capabilities == ("CAP_NET_RAW", "CAP_SYS_PTRACE")
    fresh = merge("environment_files = []\nports = []", 'ports = ["1:1"]')
    assert fresh.environment_files == ()
    assert [port.host for port in fresh.ports] == [1]


def test_a_mount_replaces_that_on_its_target() -> None:
    definition = merge('mounts = ["./new:/a:ro", "c:/c"]')
    assert [(m.target, m.source.rpartition("/")[2], m.read_only) for m in definition.mounts] == [
        ("/b", "b", False),
        ("/a", "new", True),
        ("/c", "c", False),
    ]


def test_a_port_replaces_that_of_the_host() -> None:
    assert [(p.host, p.container) for p in merge('ports = ["8080:1"]').ports] == [(8081, 81), (8080, 1)]


def test_directives_are_added_as_systemd_does() -> None:
    definition = merge(
        '[unit]\nAfter = "c.service"\n[service]\nRestartSec = 6\n[install]\nWantedBy = "x.target"'
    )
    assert definition.unit == (("After", ("a.service", "b.service", "c.service")),)
    assert definition.service == (("RestartSec", ("5", "6")),)
    assert definition.install == (("WantedBy", ("default.target", "x.target")),)


def test_an_empty_directive_takes_back() -> None:
    assert merge("[unit]\nAfter = []", '[unit]\nAfter = "c.service"').unit == (("After", ("c.service",)),)
    assert merge("[install]\nwanted_by = []").install == ()


def test_relative_paths_start_at_the_definition_not_the_drop_in() -> None:
    assert merge('mounts = ["./x:/x"]').mounts[-1].source == f"{DIRECTORY}/x"


def test_problems_name_their_own_file() -> None:
    definition, diagnostics = read(BASE, "\npull = 1", '\n\nnetwork = "none"\nports = ["9:9"]')
    assert definition is None
    assert [(d.path, d.line, d.key) for d in diagnostics] == [
        ("/etc/web.toml.d/1.toml", 2, "pull"),
        ("/etc/web.toml.d/2.toml", 4, "ports"),
    ]


def test_the_image_may_come_from_a_drop_in() -> None:
    definition, diagnostics = read("", 'image = "x"')
    assert definition is not None
    assert diagnostics == ()


@pytest.mark.parametrize("text", ["mounts = ['./a:/x', './b:/x']", "ports = ['5:5', '5:6']"])
def test_within_one_file_twice_is_an_error(text: str) -> None:
    definition, diagnostics = read(BASE, text)
    assert definition is None
    assert "twice" in diagnostics[0].message


def test_a_table_from_a_command_line_is_literal() -> None:
    table = {
        "image": "x",
        "command": ["100%", "%i"],
        "mounts": ["./a:/a"],
        "ports": ["1:1"],
        "unit": {"After": "%i.service"},
    }
    definition, diagnostics = parse_table("web@blue", table, OWNER, "/here")
    assert diagnostics == ()
    assert definition is not None
    assert definition.command == ("100%", "%i")
    assert definition.mounts[0].source == "/here/a"
    assert definition.sources == ()
    _, diagnostics = parse_table("web", {"image": "x", "ports": ["70000:1"]}, OWNER, "/")
    assert str(diagnostics[0]).startswith('error: ports[0]: "70000:1": port 70000 is not between')


def test_removal_is_for_what_was_made_to_pass() -> None:
    made = SourceText("/run/user/1000/usercontainerd/created/a.toml", 'image = "x"\nremove = true\n')
    definition, diagnostics = parse_definition("a", [made], OWNER)
    assert definition is not None and definition.remove and not diagnostics
    made.text += '[service]\nRestart = "always"\n'
    definition, diagnostics = parse_definition("a", [made], OWNER)
    assert definition is None and [each.key for each in diagnostics] == ["remove"]
