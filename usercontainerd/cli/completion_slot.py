"""Where the cursor is, and what may stand there: what ``completion`` and ``completion_names`` tell each other."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.options import Option, Verb


class Directive:
    """What the shell does with the candidates; cobra's ``ShellCompDirective``."""

    FILES = 0  # complete files where there is no candidate
    ERROR = 1
    NO_SPACE = 2
    NO_FILES = 4
    DIRECTORIES = 16


class Answer:
    """Candidates with their descriptions, and what else may stand there."""

    __slots__ = ("candidates", "directive")

    def __init__(self, candidates: dict[str, str] | None = None, directive: int = Directive.NO_FILES) -> None:
        self.candidates = candidates or {}
        self.directive = directive


class Slot:
    """The place of the word at the cursor: the value of ``option``, or the argument that the grammar calls ``name``.

    ``prefix`` is what is typed of it; ``before`` are the arguments that stand before it.
    """

    __slots__ = ("before", "name", "option", "prefix", "verb")

    def __init__(
        self, verb: Verb, name: str, prefix: str, before: list[str], option: Option | None = None
    ) -> None:
        self.verb = verb
        self.name = name
        self.prefix = prefix
        self.before = before
        self.option = option
