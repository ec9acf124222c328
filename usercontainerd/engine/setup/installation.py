"""What ends up where when this project is installed, in whatever way: one table, and what is rewritten on the way.

``tools/install`` lays files out by it for a package; ``usercontainer setup`` (``plan``) for a copy that pip
installed. Pure: text in, text out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.base.programs import LIBEXEC, SYSTEM_PREFIX
from usercontainerd.base.records import dataclass
from usercontainerd.base.unitfile import quote_word

INTERPRETER = "/usr/bin/python3"


class Kind(StrEnum):
    """What a file is, for layouts that differ from one prefix for all."""

    COMMAND = "command"
    PROGRAM = "program"
    GENERATOR = "generator"
    UNIT = "unit"
    LOGIN_UNIT = "login unit"  # instead of the generator, for a single user
    BUS_SERVICE = "bus service"
    INTERFACE = "interface"
    MANUAL = "manual page"
    COMPLETION = "completion"


@dataclass(frozen=True)
class Rule:
    """Files of one source directory that match go to one directory below a prefix."""

    kind: Kind
    source: str
    pattern: str
    target: str
    mode: int = 0o644


RULES = (
    Rule(Kind.COMMAND, "bin", "*", "bin", 0o755),
    Rule(Kind.PROGRAM, "libexec", "*", LIBEXEC, 0o755),
    Rule(Kind.GENERATOR, "libexec", "usercontainerd-generator", "lib/systemd/user-generators", 0o755),
    Rule(Kind.UNIT, "units", "*.*", "lib/systemd/user"),
    Rule(Kind.LOGIN_UNIT, "units/login", "*.*", "lib/systemd/user"),
    Rule(Kind.BUS_SERVICE, "dbus", "*.service", "share/dbus-1/services"),
    Rule(Kind.INTERFACE, "dbus", "*.xml", "share/dbus-1/interfaces"),
    *(Rule(Kind.MANUAL, "man", f"*.{section}", f"share/man/man{section}") for section in (1, 5, 7, 8)),
    Rule(Kind.COMPLETION, "completions", "*.bash", "share/bash-completion/completions"),
    Rule(Kind.COMPLETION, "completions", "_*", "share/zsh/site-functions"),
    Rule(Kind.COMPLETION, "completions", "*.fish", "share/fish/vendor_completions.d"),
)
PACKAGE_KINDS = tuple(kind for kind in Kind if kind is not Kind.LOGIN_UNIT)
SOURCES = tuple(dict.fromkeys(rule.source for rule in RULES))


def select_names(rule: Rule, names: Iterable[str]) -> list[str]:
    """Return those ``names`` of files in the rule's source directory that it is about, sorted."""
    return sorted(name for name in names if is_source(name) and fnmatch.fnmatchcase(name, rule.pattern))


def is_source(name: str) -> bool:
    """Tell whether a file name is no editor's copy, hidden or compiled file."""
    return not name.startswith(".") and not name.endswith(("~", ".pyc"))


# The one line of a script that says where the package is; a second may be there for a checkout, where what the
# package needs lies elsewhere than the package.
_LOCATION = re.compile(rb"^sys\.path\.insert\(0, .*\)  # location of the package$", re.MULTILINE)
_ONLY_CHECKOUT = re.compile(rb"^.*  # only in a checkout: .*\n", re.MULTILINE)
_SHEBANG = re.compile(rb"\A#!/usr/bin/python3(.*)\n")
# execve(2): what the kernel reads of the first line, "#!" and the end of the line included; 255 since Linux 5.1.
_LONGEST_SHEBANG = 127
# Of an interpreter's path within sh's double quotes and Python's ''' at once.
_PLAIN = re.compile(r"[^\"'\\$`\x00-\x1f\x7f]+\Z")


def render_program(source: bytes, locations: Sequence[str], interpreter: str = INTERPRETER) -> bytes:
    """Return a script of ``bin`` or ``libexec`` for a copy installed elsewhere than beside it.

    ``locations`` are the directories for ``sys.path``, the package's own first. Raises ``InvalidArgument`` for an
    interpreter that no script can name.
    """
    listed = ", ".join(map(render_python_string, locations))
    statement = f"sys.path.insert(0, {listed})" if len(locations) == 1 else f"sys.path[:0] = [{listed}]"
    line = f"{statement}  # location of the package".encode()
    text = _ONLY_CHECKOUT.sub(b"", _LOCATION.sub(lambda _: line, source))
    if interpreter == INTERPRETER:
        return text
    return _SHEBANG.sub(lambda found: render_shebang(interpreter, found[1].decode().strip()), text)


def render_python_string(text: str) -> str:
    """Return ``text`` as a literal in ASCII, so that no source encoding matters."""
    return '"' + ascii(text)[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'


def render_shebang(interpreter: str, flags: str) -> bytes:
    """Return the first lines of a script. Raises ``InvalidArgument``.

    The kernel cuts a long line and splits at blanks. sh goes between then: what it executes is a string to Python.
    """
    line = f"#!{interpreter} {flags}\n".encode(errors="surrogateescape")
    if not interpreter.startswith("/") or not _PLAIN.match(interpreter):
        raise InvalidArgument(
            f"no program can be started by this Python: {printable(interpreter)}",
            hint="its path has a quote, $, \\ or a control character: make the virtual environment elsewhere",
        )
    if len(line) <= _LONGEST_SHEBANG and not any(c in interpreter for c in " \t"):
        return line
    return f"#!/bin/sh\n'''exec' \"{interpreter}\" {flags} \"$0\" \"$@\"\n' '''\n".encode(
        errors="surrogateescape"
    )


_UNIT_PROGRAM = re.compile(rf"^(Exec\w+=[-@:+!|]*){SYSTEM_PREFIX}/{LIBEXEC}/([\w-]+)", re.MULTILINE)


def render_unit(source: str, programs: str) -> str:
    """Return a shipped unit whose programs lie in the directory ``programs``. Raises ``InvalidArgument``."""
    if programs == f"{SYSTEM_PREFIX}/{LIBEXEC}":
        return source
    return _UNIT_PROGRAM.sub(lambda found: found[1] + quote_word(f"{programs}/{found[2]}"), source)


@dataclass(frozen=True)
class Copy:
    """A copy of this project as its files have to know it: where programs, Python packages and Python are."""

    programs: str
    locations: tuple[str, ...]
    interpreter: str = INTERPRETER


def render_file(rule: Rule, source: bytes, copy: Copy) -> bytes:
    """Return the content of an installed file. Raises ``InvalidArgument``."""
    if rule.mode & 0o100:
        return render_program(source, copy.locations, copy.interpreter)
    if rule.kind in (Kind.UNIT, Kind.LOGIN_UNIT):
        return render_unit(source.decode(), copy.programs).encode()
    return source
