"""Where a value stands, so that whatever is wrong with it can be told with file, line and key."""

from __future__ import annotations

from usercontainerd.base.errors import printable
from usercontainerd.definition.diagnostic import Diagnostic, Severity
from usercontainerd.definition.specifiers import Owner, build_specifiers, expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.definition.lines import Path

MAX_PROBLEMS = 100  # of one definition: beyond that nobody reads on, and suggestions cost time
MAX_MESSAGE = 400


class SourceText:
    """One file: its path, as messages name it, and its text."""

    __slots__ = ("path", "text")

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text


class Reading:
    """What is shared while one definition is read: its name, its owner, its directory and the problems so far."""

    __slots__ = ("_lines", "_problems", "directory", "is_template", "name", "owner", "specifiers", "surplus")

    def __init__(self, name: str, directory: str, owner: Owner, *, literal: bool = False) -> None:
        # A template is verified as the instance "1", which fits as a name, as a number and as part of a port.
        self.is_template = name.endswith("@")
        self.name = f"{name}1" if self.is_template else name
        self.directory = directory
        self.owner = owner
        self.specifiers = None if literal else build_specifiers(self.name, owner)
        self.surplus = 0
        self._problems: list[tuple[int, SourceText, int | Path, Diagnostic]] = []
        self._lines: dict[int, dict[Path, int]] = {}

    @property
    def is_full(self) -> bool:
        """True once so many problems are known that the next ones are only counted."""
        return len(self._problems) >= MAX_PROBLEMS

    def report(
        self,
        source: SourceText,
        where: int | Path,
        severity: Severity,
        message: str,
        suggestion: str | None = None,
    ) -> None:
        """Note a problem; ``where`` is the key's path, or a line where there is no key."""
        if self.is_full:
            self.surplus += 1
            return
        key = "" if isinstance(where, int) else render_key(where)
        line = self._find_line(source, where)
        if len(message) > MAX_MESSAGE:  # it quotes a value, which may be of any length
            message = f"{message[: MAX_MESSAGE // 2]}...{message[-MAX_MESSAGE // 2 :]}"
        problem = Diagnostic(source.path, line, key, severity, message, suggestion)
        self._problems.append((len(self._problems), source, where, problem))

    def diagnostics(self, sources: list[SourceText]) -> tuple[Diagnostic, ...]:
        """Return all problems, by file in the order read, then by line."""
        rank = {id(source): index for index, source in enumerate(sources)}
        ordered = sorted(self._problems, key=lambda p: (rank.get(id(p[1]), 0), p[3].line, p[0]))
        found = [problem for _, _, _, problem in ordered]
        if self.surplus:
            path = sources[0].path if sources else ""
            found.append(
                Diagnostic(path, 0, "", Severity.ERROR, f"{self.surplus} more problems are not shown")
            )
        return tuple(found)

    def _find_line(self, source: SourceText, where: int | Path) -> int:
        if isinstance(where, int) or not source.path:
            return where if isinstance(where, int) else 0
        from usercontainerd.definition.lines import find_line, index_lines

        lines = self._lines.get(id(source))
        if lines is None:
            lines = self._lines[id(source)] = index_lines(source.text)
        return find_line(lines, where)


class Place:
    """One value's place in one file."""

    __slots__ = ("path", "reading", "source")

    def __init__(self, reading: Reading, source: SourceText, path: Path) -> None:
        self.reading = reading
        self.source = source
        self.path = path

    def at(self, part: str | int) -> Place:
        """Return the place of an element."""
        return Place(self.reading, self.source, (*self.path, part))

    def at_path(self, parts: Path) -> Place:
        """Return the place of an element of an element."""
        return Place(self.reading, self.source, self.path + parts)

    def error(self, message: str, suggestion: str | None = None) -> None:
        """Report that the definition cannot be used."""
        self.reading.report(self.source, self.path, Severity.ERROR, message, suggestion)

    def warn(self, message: str, suggestion: str | None = None) -> None:
        """Report what is probably not meant."""
        self.reading.report(self.source, self.path, Severity.WARNING, message, suggestion)

    def suggest(self, word: str, possible: Iterable[str]) -> str | None:
        """Return the likely one of ``possible``, unless so much is wrong that it would not be shown."""
        if self.reading.is_full:
            return None
        from usercontainerd.definition.suggestion import suggest

        return suggest(word, possible)

    def expand(self, text: str) -> str:
        """Replace ``%`` specifiers; one that is none stays and is warned of."""
        specifiers = self.reading.specifiers
        return (
            text if "%" not in text or specifiers is None else expand(text, specifiers, self._keep_specifier)
        )

    def _keep_specifier(self, specifier: str) -> str:
        if specifier in {"%i", "%I"}:
            self.warn(f'"{specifier}" is empty, since this is no instance of a template')
            return ""
        self.warn(f'"{specifier}" is no specifier and is kept as it is; write "%%" for a "%" that is meant')
        return specifier


def render_key(path: Path) -> str:
    """Return ``mounts[0].source``; a part that TOML would quote is quoted. Elements count from 0."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            short = printable(part if len(part) <= 64 else part[:61] + "...")
            plain = short.replace("_", "").replace("-", "")
            text += "." if text else ""
            text += short if plain.isascii() and plain.isalnum() else '"' + short.replace('"', '\\"') + '"'
    return text
