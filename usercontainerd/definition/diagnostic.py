"""What is wrong with a definition, and where."""

from __future__ import annotations

from enum import StrEnum

from usercontainerd.base.errors import printable
from usercontainerd.base.records import dataclass


class Severity(StrEnum):
    """An error makes the definition unusable; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Diagnostic:
    """One finding. ``line`` counts from 1, 0 is the whole file; ``key`` is the dotted key, or empty.

    ``suggestion`` is the likely word where a word is wrong.
    """

    path: str
    line: int
    key: str
    severity: Severity
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        """``path:line: error: key: message (did you mean "x"?)``, as compilers do; on one line whatever it quotes."""
        place = f"{self.path}:{self.line}: " if self.line else f"{self.path}: " if self.path else ""
        key = f"{self.key}: " if self.key else ""
        suggestion = f' (did you mean "{self.suggestion}"?)' if self.suggestion else ""
        return printable(f"{place}{self.severity}: {key}{self.message}{suggestion}")

    @property
    def is_error(self) -> bool:
        """True if the definition cannot be used."""
        return self.severity is Severity.ERROR


def has_errors(diagnostics: tuple[Diagnostic, ...]) -> bool:
    """Tell whether one of them makes the definition unusable."""
    return any(d.is_error for d in diagnostics)
