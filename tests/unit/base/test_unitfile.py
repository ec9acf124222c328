"""Read as it was meant: here by a model of systemd's reader, natively by systemd itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base import unitfile
from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.unitfile import UnitFile

ANY_TEXT = st.text(
    st.one_of(st.sampled_from("\\\"'$%{};#= \t\n\r-@abc\x1b\x7f\u2028\ufffeä"), st.characters())
)
GOOD_TEXT = ANY_TEXT.filter(unitfile.is_text)


def read_lines(text: str) -> list[str]:
    """Split a file into lines as systemd does: they end at \\n, \\r or NUL, an odd backslash joins."""
    lines: list[str] = []
    joined = ""
    for raw in text.replace("\r", "\n").replace("\0", "\n").split("\n"):
        if raw.lstrip(" \t")[:1] in ("#", ";"):
            continue
        line = joined + (raw if joined else raw.lstrip(" \t"))
        trailing = len(line) - len(line.rstrip("\\"))
        if trailing % 2:
            joined = line[:-1] + " "
            continue
        joined = ""
        lines.append(line.strip(" \t"))
    if joined:
        lines.append(joined.strip())
    return [line for line in lines if line]


def split_words(value: str, *, c_escapes: bool = True) -> list[str]:
    """Split words as extract_first_word() does with EXTRACT_UNQUOTE, and EXTRACT_CUNESCAPE or not."""
    named = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "s": " "}
    widths = {"x": 2, "u": 4, "U": 8}
    words: list[str] = []
    position, quote, word = 0, "", None
    while position < len(value):
        c = value[position]
        position += 1
        if c == "\\":
            kind = value[position]
            position += 1
            width = widths.get(kind, 0)
            if not c_escapes:
                piece, width = kind, 0
            else:
                piece = chr(int(value[position : position + width], 16)) if width else named[kind]
            position += width
            word = (word or "") + piece
        elif quote and c == quote:
            quote = ""
        elif not quote and c in "\"'":
            quote, word = c, word or ""
        elif not quote and c in " \t\n\r":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + c
    assert not quote
    return words if word is None else [*words, word]


def expand_specifiers(text: str) -> str:
    """Expand as a manager would, where every specifier but %% is a catastrophe."""
    result, position = "", 0
    while position < len(text):
        if text[position] == "%":
            assert text[position + 1] == "%", text
            position += 1
        result += text[position]
        position += 1
    return result


def expand_dollars(word: str) -> str:
    """Expand as the executor would, where every variable is a catastrophe."""
    assert word.count("$") % 2 == 0
    return word.replace("$$", "$")


@given(GOOD_TEXT)
def test_word(text: str) -> None:
    quoted = unitfile.quote_word(text)
    assert read_lines(f"Key={quoted}\nNext=1\n") == [f"Key={quoted}", "Next=1"]
    assert [expand_specifiers(word) for word in split_words(quoted)] == [text]


@given(st.lists(GOOD_TEXT))
def test_command(arguments: list[str]) -> None:
    command = unitfile.render_command(("/usr/bin/my program", *arguments), "-")
    assert command.startswith('-"/usr/bin/my program"')
    _, *words = split_words(command)
    assert [expand_dollars(expand_specifiers(word)) for word in words] == arguments
    assert " ; " not in f"{command} "


@given(GOOD_TEXT)
def test_environment(value: str) -> None:
    assert [expand_specifiers(w) for w in split_words(unitfile.render_environment("A_1", value))] == [
        f"A_1={value}"
    ]


@given(ANY_TEXT)
def test_free_text_always_fits_its_line(text: str) -> None:
    rendered = unitfile.render_text(text)
    assert unitfile.is_one_line(rendered)
    assert rendered.isprintable()
    assert rendered == rendered.strip()
    expand_specifiers(rendered)


@given(ANY_TEXT, ANY_TEXT)
def test_no_value_breaks_out(key: str, value: str) -> None:
    unit = UnitFile()
    unit.add_comment(value)
    unit.add_comment(key)
    try:
        unit.add("Service", key, value)
    except InvalidArgument:
        return
    unit.add("Service", "Next", "1")
    assert read_lines(unit.render()) == ["[Service]", f"{key}={value.strip(unitfile.BLANKS)}", "Next=1"]


@given(ANY_TEXT)
def test_path(text: str) -> None:
    path = f"/{text}"
    try:
        assert expand_specifiers(unitfile.render_path(path)) == path
    except InvalidArgument:
        assert text.strip() != text or not unitfile.is_text(text) or not unitfile.is_one_line(text)


@given(ANY_TEXT)
def test_quoted_path(text: str) -> None:
    path = f"/{text}"
    try:
        quoted = unitfile.quote_path(path)
    except InvalidArgument:
        return
    assert [expand_specifiers(word) for word in split_words(quoted, c_escapes=False)] == [path]
    assert unitfile.is_one_line(quoted)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a\nExecStart=/bin/evil", "one line"),
        ("a\rb", "one line"),
        ("a\0b", "no unit file"),
        ("a\\", "backslash"),
        ("a\\\\\\ ", "backslash"),
        ("x" * 2_000_000, "longer"),
        ("\ud800", "no unit file"),
    ],
)
def test_what_cannot_pass(value: str, problem: str) -> None:
    assert problem in (unitfile.find_directive_problem("Key", value) or "")


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=B", "[Unit]", "#A", "A\n", "Ä", "-A"])
def test_bad_keys(key: str) -> None:
    assert "name of a systemd directive" in (unitfile.find_directive_problem(key, "") or "")


@pytest.mark.parametrize("value", ["", "%h/x", "a\\\\", "$HOME", '"open quote', "a\tb"])
def test_what_passes(value: str) -> None:
    assert unitfile.find_directive_problem("X-Key1", value) is None


def test_readable() -> None:
    assert unitfile.render_command(("/usr/libexec/x/launch", "web@blue")) == "/usr/libexec/x/launch web@blue"
    assert unitfile.quote_argument("50% of $HOME") == '"50%% of $$HOME"'
    assert unitfile.quote_argument("") == '""'
    assert unitfile.quote_argument(";") == '";"'
    assert unitfile.render_text("  a\nb\\") == "a b\\."


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("default.target", True),
        ("container@web@blue.service", True),
        ("default", False),
        ("a b.service", False),
        ("../x.service", False),
        ("@x.service", False),
        (".service", False),
        ("x.exe", False),
        ("x" * 256 + ".service", False),
    ],
)
def test_unit_name(name: str, valid: bool) -> None:
    assert unitfile.is_unit_name(name) is valid


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="needs systemd-escape")
def test_escape_as_systemd_does() -> None:
    texts = ["a/b-c", ".hidden", "ä@x", "a\\b", "plain:_.", "sp ace"]
    out = subprocess.run(["systemd-escape", "--", *texts], capture_output=True, text=True, check=True).stdout
    assert out.split() == [unitfile.escape_unit_name(text) for text in texts]
    paths = ["/", "/srv/my data", "//a//b/", "/.x"]
    out = subprocess.run(
        ["systemd-escape", "-p", "--", *paths], capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == [unitfile.escape_path_name(path) for path in paths]
