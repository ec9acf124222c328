"""What may stand where the cursor is: the hidden verb ``__complete``, which the scripts in ``completions/`` call.

Verbs, options and the order of arguments are those of the verbs' own grammar; names that live are asked for where they
do (``completion_names``). The protocol is cobra's, as podman and docker have it: ``__complete WORDS… WORD`` prints a
line for each candidate, with a tab and its description, and last a colon and a sum of ``Directive``s. Of an option
that is joined with its value by ``=``, a candidate is the value alone.

Nothing is ever written to standard error, and no candidate has a character that means something to a shell: names come
from images and files of others.
"""

from __future__ import annotations

from usercontainerd.base.errors import printable
from usercontainerd.cli.completion_names import complete_slot
from usercontainerd.cli.completion_slot import Answer, Directive, Slot
from usercontainerd.cli.main import GROUPS, VERBS, load_verb
from usercontainerd.cli.output import truncate, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.options import Option, Verb

PATIENCE = 2.0  # seconds: who presses TAB waits no longer
_DESCRIPTION_WIDTH = 72
# What bash, zsh and fish take literally, wherever it stands in a word. A `=` in front is a matter of zsh's own.
_HARMLESS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/:@+,=%-")
_GOES_ON = ("=", ":", "@", "/", ",")


def run_complete(words: list[str], environment: dict[str, str], *, described: bool = True) -> int:
    """Print the answer for ``words``, the last of which is at the cursor. Whatever happens, nothing else."""
    from _signal import ITIMER_REAL, SIGALRM, setitimer, signal  # type: ignore[import-not-found]

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError

    signal(SIGALRM, give_up)
    setitimer(ITIMER_REAL, PATIENCE)
    try:
        answer = complete_words(words or [""], environment)
    except Exception:  # a half-typed line is no place for messages
        answer = Answer(directive=Directive.ERROR)
    setitimer(ITIMER_REAL, 0)
    write_output(render_answer(answer, described=described))
    return 0


def render_answer(answer: Answer, *, described: bool = True) -> str:
    """The text for the shell. Pure."""
    lines = []
    for candidate, description in answer.candidates.items():
        text = truncate(" ".join(printable(description).split()), _DESCRIPTION_WIDTH) if described else ""
        lines.append(f"{candidate}\t{text}\n" if text else f"{candidate}\n")
    return "".join(lines) + f":{answer.directive}\n"


def complete_words(words: list[str], environment: dict[str, str]) -> Answer:
    """Answer for a command line without its first word. Raises whatever asking for names raises."""
    *before, prefix = words
    found = find_verb(before)
    if isinstance(found, dict):
        return select_candidates(found, prefix)
    if found is None:
        return Answer()
    name, rest = found
    verb = load_verb(name)[0]
    slot = find_slot(verb, rest, prefix)
    if slot is None:
        return select_candidates(describe_options(verb, rest), prefix)
    answer = complete_slot(slot, environment)
    return select_candidates(answer.candidates, slot.prefix, answer.directive)


def find_verb(words: list[str]) -> tuple[str, list[str]] | dict[str, str] | None:
    """Return the verb and the words behind it; what may come next, if it is not complete; None if there is none."""
    helps = words[:1] in (["help"], ["--help"], ["-h"])
    rest = words[1:] if helps else words
    if not rest:
        return describe_verbs(helps=helps)
    if rest[0] in GROUPS:
        if len(rest) == 1:
            verbs = {name: VERBS[verb][1] for name, verb in GROUPS[rest[0]].items()}
            return verbs if helps else {**verbs, "help": "Show the verbs"}
        if rest[1] in ("help", "--help", "-h") and not helps:
            return find_verb(["help", rest[0], *rest[2:]])
        if helps or rest[1] not in GROUPS[rest[0]]:
            return None
        return GROUPS[rest[0]][rest[1]], rest[2:]
    return None if helps or rest[0] not in VERBS else (rest[0], rest[1:])


def describe_verbs(*, helps: bool) -> dict[str, str]:
    """The first words that are possible. Pure."""
    found = {name: summary for name, (_, summary) in VERBS.items() if " " not in name}
    found.update((group, ", ".join(sorted(verbs))) for group, verbs in GROUPS.items())
    if not helps:
        found.update({"help": "Show all verbs, or tell more of one", "--help": "Show all verbs"})
        found["--version"] = VERBS["version"][1]
    return dict(sorted(found.items()))


def find_slot(verb: Verb, words: list[str], word: str) -> Slot | None:
    """Find out what ``word`` is behind ``words``; None if it begins an option. Pure.

    Reads as ``options.parse_options`` does, but takes no offence.
    """
    by_name = {name: option for option in verb.options for name in option.names}
    arguments: list[str] = []
    pending: Option | None = None
    ended = False
    for each in words:
        if pending is not None:
            pending = None
        elif ended or len(each) < 2 or each[0] != "-":
            arguments.append(each)
            ended = ended or verb.leading
        elif each == "--":
            ended = True
        else:
            pending = find_pending(by_name, each)
    if pending is not None:
        return Slot(verb, pending.metavar, word, arguments, pending)
    if not ended and word.startswith("-"):
        name, equals, value = word.partition("=")
        option = by_name.get(name)
        if not equals or not name.startswith("--"):
            return None
        return Slot(verb, "" if option is None else option.metavar or "BOOLEAN", value, arguments, option)
    return Slot(verb, name_argument(verb.arguments, len(arguments)), word, arguments)


def find_pending(by_name: dict[str, Option], word: str) -> Option | None:
    """Return the option whose value is the word after ``word``, None if there is none. Pure."""
    if word.startswith("--"):
        option = by_name.get(word)
        return None if option is None or option.is_flag else option
    for position, letter in enumerate(word[1:], start=2):
        option = by_name.get(f"-{letter}")
        if option is None or (not option.is_flag and position < len(word)):
            return None
        if not option.is_flag:
            return option
    return None


def list_arguments(usage: str) -> list[str]:
    """The names of a verb's arguments, as its usage line has them; one that may be repeated ends in ``...``. Pure.

    ``[COMMAND [ARG...]]`` is ``COMMAND`` and ``ARG...``; ``show | set`` is ``show|set``, a choice of words.
    """
    return [_strip_brackets(word) for word in usage.replace(" | ", "|").split()]


def _strip_brackets(word: str) -> str:
    # A pair may go round several words, and round one that has brackets of its own.
    surplus = word.count("[") - word.count("]")
    word = word[surplus:] if surplus > 0 else word[: len(word) + surplus]
    return word[1:-1] if word[:1] == "[" and word[-1:] == "]" else word


def name_argument(usage: str, index: int) -> str:
    """What the grammar calls argument number ``index``, empty if it has none. Pure."""
    names = list_arguments(usage)
    if index < len(names):
        return names[index].removesuffix("...")
    return names[-1].removesuffix("...") if names and names[-1].endswith("...") else ""


def describe_options(verb: Verb, words: list[str]) -> dict[str, str]:
    """The options that may follow ``words``: one that counts once is not offered again. Pure."""
    given = {word.partition("=")[0] for word in words}
    found = {"--help": "Show what the verb does"}
    for option in verb.options:
        if option.many or not given.intersection(option.names):
            found.update(dict.fromkeys(option.names, option.help))
    return dict(sorted(found.items()))


def select_candidates(candidates: dict[str, str], prefix: str, directive: int = Directive.NO_FILES) -> Answer:
    """Leave what begins with ``prefix`` and is harmless to a shell; no space behind what goes on. Pure.

    Options show when they are begun.
    """
    chosen = {
        candidate: description
        for candidate, description in candidates.items()
        if candidate.startswith(prefix) and is_harmless(candidate) and (prefix or candidate[0] != "-")
    }
    if chosen and all(candidate.endswith(_GOES_ON) for candidate in chosen):
        directive |= Directive.NO_SPACE
    return Answer(chosen, directive)


def is_harmless(text: str) -> bool:
    """Tell whether every shell takes ``text`` literally. Pure."""
    return text != "" and _HARMLESS.issuperset(text)
