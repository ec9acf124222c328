"""``--format``: a small part of Go's templates, as docker's users write them.

``{{.Names}}``, ``{{.State.Pid}}``, ``{{json .Mounts}}``, ``{{index .Config.Labels "x"}}``, ``{{.Names | upper}}``,
the functions ``json``, ``index``, ``len``, ``join``, ``lower``, ``upper``, ``title`` and ``println``, and ``table``
in front for columns with headings. There is no ``range``, ``if`` or ``with``: for these, take ``json`` and jq(1).
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Piece = (
        str | tuple[tuple[str, ...], ...]
    )  # literal text, or a pipeline of commands, each a tuple of words

BLOCKS = ("range", "if", "with", "end", "else", "define", "template", "block", "break", "continue")
_QUOTES = '"`'
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


class Template:
    """A parsed template; ``is_table`` if it began with ``table``."""

    __slots__ = ("is_table", "pieces")

    def __init__(self, pieces: tuple[Piece, ...], is_table: bool) -> None:
        self.pieces = pieces
        self.is_table = is_table

    def render(self, value: dict[str, Any]) -> str:
        """Fill in one object. Raises ``InvalidArgument`` for a field that it does not have."""
        return "".join(
            piece if isinstance(piece, str) else render_value(_run_pipeline(piece, value))
            for piece in self.pieces
        )

    @property
    def fields(self) -> set[str]:
        """The fields of the object that it asks for; an empty name stands for the whole object."""
        return {
            word.split(".")[1]
            for piece in self.pieces
            if not isinstance(piece, str)
            for command in piece
            for word in command
            if word[0] == "."
        }

    def render_heading(self, headings: dict[str, str]) -> str:
        """The first line of a table: each field's name in capitals, or as ``headings`` has it."""
        return "".join(
            piece if isinstance(piece, str) else _name_column(piece, headings) for piece in self.pieces
        )


def parse_template(text: str) -> Template:
    """Read a template. Raises ``InvalidArgument``."""
    is_table = text == "table" or text.startswith(("table ", "table\t", "table\\t"))
    if is_table:
        text = text.removeprefix("table").lstrip(" ")
    for written, meant in _ESCAPES.items():
        text = text.replace(written, meant)
    pieces: list[Piece] = []
    rest = text
    while rest:
        literal, opening, rest = rest.partition("{{")
        if literal:
            pieces.append(literal)
        if opening:
            inside, closing, rest = rest.partition("}}")
            if not closing:
                raise InvalidArgument("--format: {{ without }}")
            pieces.append(_parse_pipeline(inside))
    return Template(tuple(pieces), is_table)


def _parse_pipeline(text: str) -> tuple[tuple[str, ...], ...]:
    commands: list[list[str]] = [[]]
    for word in split_words(text):
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    for command in commands:
        if not command:
            raise InvalidArgument(f"--format: {{{{{text}}}}} is not complete")
        name = command[0]
        if name in BLOCKS:
            raise InvalidArgument(
                f"--format: {{{{{name}}}}} is not possible", hint="use --format json and a tool such as jq"
            )
        if name[0] not in "." + _QUOTES and name not in FUNCTIONS:
            raise InvalidArgument(
                f"--format: {{{{{text}}}}}: there is no function {name}",
                hint=f"a field is written .{name}; functions are {', '.join(FUNCTIONS)}",
            )
    return tuple(map(tuple, commands))


def split_words(text: str) -> list[str]:
    """Split at blanks, but for quoted words, which keep their opening quote as a mark."""
    words = []
    rest = text.strip()
    while rest:
        if rest[0] in _QUOTES:
            end = rest.find(rest[0], 1)
            if end < 0:
                raise InvalidArgument(f"--format: a quote without its end in {{{{{text}}}}}")
            words.append(rest[:end])
            rest = rest[end + 1 :].lstrip()
        elif rest[0] == "|":
            words.append("|")
            rest = rest[1:].lstrip()
        else:
            end = next((i for i, c in enumerate(rest) if c.isspace() or c == "|"), len(rest))
            words.append(rest[:end])
            rest = rest[end:].lstrip()
    return words


def _name_column(pipeline: tuple[tuple[str, ...], ...], headings: dict[str, str]) -> str:
    path = next((word for command in pipeline for word in command if word.startswith(".")), "")
    name = path.rpartition(".")[2]
    quoted = [word[1:] for command in pipeline for word in command if word[0] in _QUOTES]
    return quoted[0].upper() if quoted else headings.get(name, name.upper())


def _run_pipeline(pipeline: tuple[tuple[str, ...], ...], value: dict[str, Any]) -> Any:
    result: Any = None
    for position, (name, *words) in enumerate(pipeline):
        arguments = [_evaluate(word, value) for word in words]
        if position:
            arguments.append(result)
        if name in FUNCTIONS:
            result = _call(name, arguments)
        elif name == ".Label" and len(arguments) == 1:
            result = dict(value.get("_labels", ())).get(arguments[0], "")
        elif arguments:
            raise InvalidArgument(f"--format: {name} takes no arguments")
        else:
            result = _evaluate(name, value)
    return result


def _evaluate(word: str, value: dict[str, Any]) -> Any:
    if word[0] in _QUOTES:
        return word[1:]
    if word[0] == ".":
        return _look_up(word, value)
    if word.lstrip("-").isdecimal():
        return int(word)
    raise InvalidArgument(f"--format: {word} is neither a field nor a text in quotes")


def _look_up(path: str, value: dict[str, Any]) -> Any:
    found: Any = value
    for part in path.split(".")[1:]:
        if part == "":
            continue
        if not isinstance(found, dict) or part not in found or part.startswith("_"):
            raise _explain_missing(path, found)
        found = found[part]
    return found


def _explain_missing(path: str, found: Any) -> InvalidArgument:
    known = sorted(key for key in found if not key.startswith("_"))[:40] if isinstance(found, dict) else []
    hint = f"possible are {', '.join(known)}" if known else None
    return InvalidArgument(f"--format: there is no field {path}", hint=hint)


def _call(name: str, arguments: list[Any]) -> Any:
    function, count = FUNCTIONS[name]
    if len(arguments) != count and not (name == "index" and len(arguments) > count):
        raise InvalidArgument(f"--format: {name} takes {count} argument{'s' * (count > 1)}")
    return function(*arguments)


def _render_json(value: Any) -> str:
    from usercontainerd.cli.json_text import dump_json

    return dump_json(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        try:
            value = value[key]
        except KeyError:
            return ""  # Go's zero value
        except (IndexError, TypeError) as error:
            raise InvalidArgument(f"--format: index: there is no element {key}") from error
    return value


def _join(values: Any, separator: str) -> str:
    return separator.join(map(render_value, values)) if isinstance(values, list) else str(values)


def _title(text: Any) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in str(text).split(" "))


FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "index": (_index, 2),
    "join": (_join, 2),
    "json": (_render_json, 1),
    "len": (len, 1),
    "lower": (lambda text: str(text).lower(), 1),
    "println": (lambda value: f"{render_value(value)}\n", 1),
    "title": (_title, 1),
    "upper": (lambda text: str(text).upper(), 1),
}


def render_value(value: Any) -> str:
    """Return a value as Go's templates print it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        pairs = (
            f"{key}:{render_value(each)}" for key, each in sorted(value.items()) if not key.startswith("_")
        )
        return f"map[{' '.join(pairs)}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(render_value, value))}]"
    return str(value)
