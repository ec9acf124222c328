"""The grammar of a verb's command line: one table of options, read as docker's commands read theirs.

``argparse`` costs 8 ms to import, and does not know docker's rule that the options of ``exec`` and ``create`` end at
the first argument. A table also renders ``--help``, and a test compares it with the manual.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument

_TRUE = ("true", "1", "t", "T", "TRUE", "True")
_FALSE = ("false", "0", "f", "F", "FALSE", "False")


class Option:
    """One option, from its line in the help: ``-a, --all``, ``-n, --tail LINES``, ``-e, --env NAME=VALUE...``.

    Without a metavariable it is a flag; with three dots it may be given several times. ``values`` are those that a
    shell offers, where there is a fixed set; one that ends in ``=`` goes on.
    """

    __slots__ = ("help", "key", "many", "metavar", "names", "values")

    def __init__(self, spec: str, summary: str, values: tuple[str, ...] = ()) -> None:
        names = []
        rest = spec
        while rest.startswith("-"):
            name, _, rest = rest.partition(" ")
            names.append(name.rstrip(","))
        self.names = tuple(names)
        self.many = rest.endswith("...")
        self.metavar = rest.removesuffix("...")
        self.key = next((name for name in names if name.startswith("--")), names[0]).lstrip("-")
        self.help = summary
        self.values = values

    @property
    def is_flag(self) -> bool:
        """True if it takes no value."""
        return not self.metavar


class Verb:
    """One verb: its arguments as the usage line shows them, and its options.

    ``fewest`` and ``most`` limit the number of arguments. With ``leading`` the options end at the first argument:
    what follows belongs to a command. ``refused`` are options of docker's that are known and not possible, with the
    reason.
    """

    __slots__ = ("arguments", "details", "fewest", "leading", "most", "name", "options", "refused", "summary")

    def __init__(
        self,
        name: str,
        arguments: str,
        summary: str,
        options: tuple[Option, ...] = (),
        *,
        fewest: int = 0,
        most: int | None = None,
        leading: bool = False,
        details: str = "",
        refused: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.summary = summary
        self.options = options
        self.fewest = fewest
        self.most = most
        self.leading = leading
        self.details = details
        self.refused = refused or {}


class Options:
    """What a command line said: ``words`` are the arguments; options are asked for by their long name."""

    __slots__ = ("_given", "help", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.help = False
        self._given: dict[str, list[str]] = {}

    def take(self, option: Option, value: str) -> None:
        """Note an option's value; of several, the last counts unless all do."""
        self._given.setdefault(option.key, []).append(value)

    def given(self, key: str) -> bool:
        """Tell whether the option was there at all."""
        return key in self._given

    def flag(self, key: str, default: bool = False) -> bool:
        """A flag; ``--flag=false`` is possible too."""
        values = self._given.get(key)
        return default if values is None else values[-1] == "true"

    def value(self, key: str) -> str | None:
        """The value given last, or None."""
        values = self._given.get(key)
        return None if values is None else values[-1]

    def values(self, key: str) -> tuple[str, ...]:
        """All values, in their order."""
        return tuple(self._given.get(key, ()))


def parse_options(verb: Verb, words: list[str]) -> Options:
    """Read the words behind a verb. Raises ``InvalidArgument``."""
    options = Options()
    by_name = {name: option for option in verb.options for name in option.names}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            options.words.append(word)
            if verb.leading:
                break
        elif word == "--help" or (word == "-h" and "-h" not in by_name):
            options.help = True
        elif word.startswith("--"):
            _take_long(verb, by_name, word, rest, options)
        else:
            _take_short(verb, by_name, word, rest, options)
    options.words.extend(reversed(rest))
    if not options.help:
        _check_count(verb, options.words)
    return options


def _take_long(verb: Verb, by_name: dict[str, Option], word: str, rest: list[str], options: Options) -> None:
    name, equals, value = word.partition("=")
    option = by_name.get(name)
    if option is None:
        raise _explain_unknown(verb, by_name, name)
    if option.is_flag:
        options.take(option, _parse_flag(name, value) if equals else "true")
    else:
        options.take(option, value if equals else _take_value(name, option, rest))


def _take_short(verb: Verb, by_name: dict[str, Option], word: str, rest: list[str], options: Options) -> None:
    letters = word[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = by_name.get(name)
        if option is None:
            raise _explain_unknown(verb, by_name, name if name == word else f"{name} in {word}")
        if not option.is_flag:
            options.take(option, letters.removeprefix("=") if letters else _take_value(name, option, rest))
            return
        if letters.startswith("="):
            options.take(option, _parse_flag(name, letters[1:]))
            return
        options.take(option, "true")


def _take_value(name: str, option: Option, rest: list[str]) -> str:
    if not rest:
        raise InvalidArgument(f"option {name} needs a value: {name} {option.metavar}")
    return rest.pop()


def _parse_flag(name: str, value: str) -> str:
    if value in _TRUE:
        return "true"
    if value in _FALSE:
        return "false"
    raise InvalidArgument(f'option {name} is true or false, not "{value}"')


def _explain_unknown(verb: Verb, by_name: dict[str, Option], name: str) -> InvalidArgument:
    plain = name.partition(" ")[0]
    if plain in verb.refused:
        return InvalidArgument(f"option {plain}: {verb.refused[plain]}")
    hint = f"see `usercontainer {verb.name} --help`"
    if plain.startswith("--"):
        from usercontainerd.definition.suggestion import suggest

        likely = suggest(plain, by_name)
        hint = f"did you mean {likely}?" if likely else hint
    return InvalidArgument(f"unknown option {name}", hint=hint)


def _check_count(verb: Verb, words: list[str]) -> None:
    usage = f"usercontainer {verb.name} [OPTIONS] {verb.arguments}".rstrip()
    if len(words) < verb.fewest:
        raise InvalidArgument("an argument is missing", hint=f"usage: {usage}")
    if verb.most is not None and len(words) > verb.most:
        raise InvalidArgument(f'"{words[verb.most]}" is an argument too many', hint=f"usage: {usage}")


def render_help(verb: Verb) -> str:
    """The text of ``usercontainer VERB --help``."""
    bracket = "[OPTIONS] " if verb.options else ""
    parts = [f"Usage: usercontainer {verb.name} {bracket}{verb.arguments}".rstrip(), "", verb.summary]
    if verb.details:
        parts += ["", verb.details]
    if verb.options:
        parts += ["", "Options:", *render_options(verb.options)]
    return "\n".join(parts) + "\n"


def render_options(options: tuple[Option, ...], width: int = 30) -> list[str]:
    """One line for each option, long-only ones aligned below the long names of the others."""
    lines = []
    for option in sorted(options, key=lambda each: each.key):
        indent = "  " if len(option.names[0]) == 2 else "      "
        left = indent + ", ".join(option.names) + (f" {option.metavar}" if option.metavar else "")
        if len(left) + 2 > width:
            lines += [left, " " * width + option.help]
        else:
            lines.append(left.ljust(width) + option.help)
    return lines
