"""The option parser: docker's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Options, Verb, parse_options, render_help

VERB = Verb(
    "frob",
    "THING [WORD...]",
    "Frob a thing",
    (
        Option("-a, --all", "everything"),
        Option("-e, --env NAME=VALUE...", "set a variable"),
        Option("-i, --interactive", "keep standard input"),
        Option("-n, --tail, --last NUMBER", "how many"),
        Option("--no-trunc", "nothing is cut"),
        Option("-t, --tty", "a terminal"),
    ),
    fewest=1,
    refused={"--privileged": "there is no such mode", "-x": "never"},
)
LEADING = Verb("exec", "THING [WORD...]", "Run", VERB.options, fewest=1, leading=True)
NONE = Verb("none", "", "Takes nothing", most=0)


def parse(*words: str, verb: Verb = VERB) -> Options:
    return parse_options(verb, list(words))


def test_flags_and_values_in_all_spellings() -> None:
    for words in (["-n", "5"], ["-n5"], ["-n=5"], ["--tail", "5"], ["--tail=5"], ["--last=5"], ["-an5"]):
        assert parse("x", *words).value("tail") == "5", words
    options = parse("-it", "x", "--no-trunc")
    assert options.flag("interactive") and options.flag("tty") and options.flag("no-trunc")
    assert not options.flag("all")
    assert options.words == ["x"]


def test_flags_can_be_false() -> None:
    assert not parse("x", "--all=false").flag("all")
    assert parse("x", "--all=true").flag("all")
    assert not parse("x", "--all", "--all=0").flag("all")
    assert parse("x").flag("all", default=True)
    with pytest.raises(InvalidArgument, match='"maybe"'):
        parse("x", "--all=maybe")


def test_repeated_options_add_up_and_others_are_replaced() -> None:
    options = parse("x", "-e", "A=1", "--env=B=2", "-eC=3", "-n1", "-n2")
    assert options.values("env") == ("A=1", "B=2", "C=3")
    assert options.value("tail") == "2"
    assert options.value("env") == "C=3"
    assert options.given("env") and not options.given("all")


def test_options_may_follow_arguments_unless_they_lead_to_a_command() -> None:
    assert parse("x", "-a", "y").words == ["x", "y"]
    options = parse("-i", "x", "sh", "-c", "--help", verb=LEADING)
    assert options.words == ["x", "sh", "-c", "--help"]
    assert not options.help


def test_two_hyphens_end_the_options() -> None:
    assert parse("--", "-a", "--all").words == ["-a", "--all"]
    assert parse("x", "--", "-a", verb=LEADING).words == ["x", "--", "-a"]


def test_a_value_may_look_like_an_option_and_a_hyphen_is_an_argument() -> None:
    assert parse("x", "-n", "-1").value("tail") == "-1"
    assert parse("x", "-e", "--all").values("env") == ("--all",)
    assert parse("-").words == ["-"]


def test_help_anywhere() -> None:
    assert parse("--help").help
    assert parse("-h").help  # no option of this verb has that letter
    assert parse("x", "-a", "--help").help


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--al"], "did you mean --all"),
        (["x", "--frobnicate"], "see `usercontainer frob --help`"),
        (["x", "-z"], "unknown option -z"),
        (["x", "-az"], "unknown option -z in -az"),
        (["x", "-n"], "option -n needs a value: -n NUMBER"),
        (["x", "--tail"], "option --tail needs a value"),
        (["x", "--privileged"], "there is no such mode"),
        (["x", "-x"], "never"),
        ([], "an argument is missing"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(*words)
    assert message in str(caught.value)


def test_too_many_arguments() -> None:
    with pytest.raises(InvalidArgument, match="too many"):
        parse("x", verb=NONE)


def test_help_names_every_option() -> None:
    text = render_help(VERB)
    assert text.startswith("Usage: usercontainer frob [OPTIONS] THING [WORD...]\n\nFrob a thing\n")
    assert "  -n, --tail, --last NUMBER" in text
    assert "      --no-trunc" in text
    assert all(option.help in text for option in VERB.options)
    assert all(len(line) <= 120 for line in text.splitlines())


@given(st.lists(st.text(max_size=6)))
def test_any_words_are_parsed_or_refused(words: list[str]) -> None:
    for verb in (VERB, LEADING, NONE):
        try:
            options = parse_options(verb, words)
        except InvalidArgument:
            continue
        assert all(word in words for word in options.words)
