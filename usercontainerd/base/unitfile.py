"""Text of unit files: the one place where text is escaped for systemd, and a small ordered builder. Pure.

systemd reads a value in layers, and which ones apply depends on the directive (systemd.syntax(7),
systemd.service(5), "COMMAND LINES"):

1. line: ``\n``, ``\r`` and NUL end it, an odd backslash at its end continues it, blanks around the value
   are dropped;
2. words: quotes and C escapes, in ``ExecStart=`` and ``Environment=`` but not in ``Description=`` or paths;
3. specifiers: ``%i`` and friends, nearly everywhere;
4. ``$VARIABLE``: command lines only.

A ``quote_*``, ``render_*`` or ``escape_*`` function here answers for all layers of the directives that it
names. Imports nothing: the generator loads this.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BLANKS = " \t\n\r"
LINE_ENDS = "\n\r\0"
LONGEST_LINE = (
    1024 * 1024 - 1024
)  # systemd's LONG_LINE_MAX is 1 MiB for the whole line; a longer one spoils the unit

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = "0123456789"
_PLAIN_WORD = frozenset(_LETTERS + _DIGITS + "_@%+=:,./-")
_KEY = frozenset(_LETTERS + _DIGITS + "-")
_VARIABLE = frozenset(_LETTERS + _DIGITS + "_")
_UNIT_NAME = frozenset(_LETTERS + _DIGITS + ":-_.\\@")
_UNIT_TYPES = frozenset(
    ("automount", "device", "mount", "path", "scope", "service", "slice", "socket", "swap", "target", "timer")
)
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def is_text(text: str) -> bool:
    """Tell whether systemd takes ``text`` as UTF-8: no NUL, lone surrogate or Unicode noncharacter."""
    return not any(
        c == "\0" or 0xD800 <= (n := ord(c)) <= 0xDFFF or 0xFDD0 <= n <= 0xFDEF or (n & 0xFFFE) == 0xFFFE
        for c in text
    )


def is_one_line(value: str) -> bool:
    """Tell whether ``value`` stays within its line: no line end, no backslash that joins the next line."""
    trailing = len(value) - len(value.rstrip("\\"))
    return trailing % 2 == 0 and not any(c in value for c in LINE_ENDS)


def escape_specifiers(text: str) -> str:
    """Return ``text`` such that systemd expands no specifier in it."""
    return text.replace("%", "%%")


def render_text(text: str) -> str:
    r"""Return ``text`` for a directive of free text (``Description=``, ``SyslogIdentifier=``).

    Whatever comes, it fits.

    Blanks are kept single, other characters that cannot be printed become visible escapes, a backslash that
    would continue the line is followed by a full stop.
    """
    readable = printable(" ".join(text.split()))
    readable = readable if is_one_line(readable) else f"{readable}."
    return escape_specifiers(readable)


def quote_word(text: str) -> str:
    """Return ``text`` as one word of a directive that knows quotes and C escapes (``Environment=``).

    Raises ``InvalidArgument`` for what no unit file can carry (see ``is_text``).
    """
    if not is_text(text):
        raise InvalidArgument(f"this text cannot be written into a unit: {printable(text)}")
    text = escape_specifiers(text)
    if text and _PLAIN_WORD.issuperset(text):
        return text
    return '"' + "".join(_escape_character(c) for c in text) + '"'


def _escape_character(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    if c.isprintable():
        return c
    number = ord(c)
    return (
        f"\\x{number:02x}"
        if number < 0x80
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def quote_argument(text: str) -> str:
    """Return ``text`` as one argument of a command line: nothing in it is expanded, split or a ``;``."""
    return quote_word(text.replace("$", "$$"))


def render_command(argv: Sequence[str], prefix: str = "") -> str:
    """Return the value of ``ExecStart=`` and its kind for ``argv``.

    ``prefix`` is one of systemd's (``-``, ``+``, …). The program is an absolute path: systemd expands ``$``
    in arguments only.
    """
    program, *arguments = argv
    if not program.startswith("/"):
        raise InvalidArgument(f"a unit needs the absolute path of its program, not {printable(program)}")
    return " ".join((prefix + quote_word(program), *map(quote_argument, arguments)))


def render_environment(name: str, value: str) -> str:
    """Return the value of ``Environment=`` that sets one variable."""
    if not name or name[0] in _DIGITS or not _VARIABLE.issuperset(name):
        raise InvalidArgument(f"not a name for an environment variable: {printable(name)}")
    return quote_word(f"{name}={value}")


def render_path(path: str) -> str:
    """Return ``path`` for a directive that takes the rest of its line as one path (``SourcePath=``).

    Such a directive knows no quotes: a path that ends in a blank or a backslash, or has a line end, cannot
    be written.
    """
    if not path.startswith("/") or not is_text(path) or not is_one_line(path) or path != path.strip(BLANKS):
        raise InvalidArgument(f"a unit cannot name this path: {printable(path)}")
    return escape_specifiers(path)


def quote_path(path: str) -> str:
    """Return ``path`` as one word of ``RequiresMountsFor=``, where a backslash makes the next character plain."""
    if not path.startswith("/") or not is_text(path) or any(c in path for c in LINE_ENDS):
        raise InvalidArgument(f"a unit cannot name this path: {printable(path)}")
    escaped = escape_specifiers(path)
    if _PLAIN_WORD.issuperset(escaped):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def is_unit_name(name: str) -> bool:
    """Tell whether ``name`` is a whole unit name with its type, as systemd's ``unit_name_is_valid``."""
    stem, dot, kind = name.rpartition(".")
    return (
        bool(stem and dot)
        and kind in _UNIT_TYPES
        and len(name) < 256
        and _UNIT_NAME.issuperset(stem)
        and stem[0] != "@"
    )


def escape_unit_name(text: str) -> str:
    r"""Return ``text`` as part of a unit name, as systemd-escape(1): ``/`` becomes ``-``, others ``\xNN``."""
    plain = _LETTERS + _DIGITS + ":_."
    escaped = []
    for index, byte in enumerate(text.encode()):
        c = chr(byte)
        if c == "/":
            escaped.append("-")
        elif c in plain and not (c == "." and index == 0):
            escaped.append(c)
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped)


def escape_path_name(path: str) -> str:
    """Return absolute ``path`` as the stem of its mount unit, as ``systemd-escape --path``."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts:
        raise InvalidArgument(f"not a normalised absolute path: {printable(path)}")
    return escape_unit_name("/".join(parts)) if parts else "-"


def find_directive_problem(key: str, value: str) -> str | None:
    """Say why ``key=value`` as a user wrote it cannot be passed through, or None; specifiers may be used."""
    if not key or key[0] not in _LETTERS or not _KEY.issuperset(key):
        return f"not a name of a systemd directive: {printable(key)}"
    if not is_text(value):
        return "the value holds a character that no unit file can carry"
    if any(c in value.strip(BLANKS) for c in LINE_ENDS):
        return "a directive is one line; give a list for several"
    if not is_one_line(value.strip(BLANKS)):
        return "the value ends in a backslash, which would swallow the next line"
    if len(value.encode()) > LONGEST_LINE:
        return "the value is longer than systemd reads"
    return None


class UnitFile:
    """A unit file in the making: comment lines, then sections and directives in the order added."""

    __slots__ = ("_comments", "_sections")

    def __init__(self) -> None:
        self._comments: list[str] = []
        self._sections: dict[str, list[tuple[str, str]]] = {}

    def add_comment(self, text: str) -> None:
        """Add one line to the head of the file."""
        self._comments.append(f"# {printable(text)}".rstrip())

    def add(self, section: str, key: str, value: str) -> None:
        """Add a directive; its value comes from a function here, or passed ``find_directive_problem``."""
        value = value.strip(BLANKS)
        problem = find_directive_problem(key, value)
        if problem is not None:
            raise InvalidArgument(problem, where=f"[{section}] {printable(key)}=")
        self._sections.setdefault(section, []).append((key, value))

    def add_all(self, section: str, directives: Iterable[tuple[str, str]]) -> None:
        """Add several directives of one section."""
        for key, value in directives:
            self.add(section, key, value)

    def render(self) -> str:
        """Return the text of the whole file."""
        blocks = ["\n".join(self._comments)] if self._comments else []
        for section, directives in self._sections.items():
            lines = (f"[{section}]", *(f"{key}={value}" for key, value in directives))
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + "\n"
