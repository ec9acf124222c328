"""What ``__complete`` answers: the place of the cursor, the verbs' own grammar, names that live, and hostile ones."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.cli import completion, completion_names
from usercontainerd.cli import main as door
from usercontainerd.cli.call import Call
from usercontainerd.cli.completion import (
    complete_words,
    find_slot,
    find_verb,
    is_harmless,
    list_arguments,
    name_argument,
    render_answer,
    run_complete,
)
from usercontainerd.cli.completion_slot import Answer, Directive
from usercontainerd.cli.images import FILTERS as IMAGE_FILTERS
from usercontainerd.cli.options import Option, Options, Verb
from usercontainerd.cli.selection import FILTERS as CONTAINER_FILTERS
from usercontainerd.engine.containers.filters import KINDS, build_test
from usercontainerd.engine.containers.listing import State
from usercontainerd.engine.images.filters import PRUNE_KINDS, ImageFilters
from usercontainerd.engine.images.users import ImageUsers

VERB = Verb(
    "move",
    "CONTAINER IMAGE [FILE|- [TERM...]]",
    "Move",
    (
        Option("-a, --all", "everything"),
        Option("-n, --name NAME", "a name"),
        Option("-e, --env NAME=VALUE...", "variables"),
        Option("-p, --policy POLICY", "when", ("always", "never")),
    ),
)
LEADING = Verb("lead", "CONTAINER COMMAND [ARG...]", "Lead", VERB.options, leading=True)
HOSTILE = (
    *(
        "$(touch x)",
        "`touch x`",
        "a\nb",
        "a\tb",
        "a b",
        "a;b",
        "a'b",
        'a"b',
        "a\\b",
        "a&b",
        "a|b",
        "a>b",
        "a*",
        "a?",
    ),
    *(
        "[a]",
        "{a,b}",
        "a\x1b[31m",
        "a\x7f",
        "~a",
        "!a",
        "#a",
        "a\u202eb",
        "ä",
        "",
        "a^b",
        "(a)",
        "a\0b",
        "\udcff",
    ),
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "LANG": "C"}


def paths(environment: dict[str, str]) -> Paths:
    return Paths.from_environment(environment, os.getuid())


def ask(environment: dict[str, str], *words: str) -> list[str]:
    return list(complete_words(list(words), environment).candidates)


# Where the cursor is


@pytest.mark.parametrize(
    ("usage", "names"),
    [
        ("", []),
        ("IMAGE [COMMAND] [ARG...]", ["IMAGE", "COMMAND", "ARG..."]),
        ("[COMMAND [ARG...]]", ["COMMAND", "ARG..."]),
        ("CONTAINER [CONTAINER...]", ["CONTAINER", "CONTAINER..."]),
        ("[REPOSITORY[:TAG]]", ["REPOSITORY[:TAG]"]),
        ("show | set REGISTRY[/REPOSITORY]", ["show|set", "REGISTRY[/REPOSITORY]"]),
        ("FILE|- [IMAGE]", ["FILE|-", "IMAGE"]),
    ],
)
def test_names_of_arguments(usage: str, names: list[str]) -> None:
    assert list_arguments(usage) == names


def test_an_argument_that_repeats() -> None:
    assert [name_argument("A [B...]", index) for index in range(4)] == ["A", "B", "B", "B"]
    assert [name_argument("A [B]", index) for index in range(3)] == ["A", "B", ""]


@pytest.mark.parametrize(
    ("words", "word", "name", "prefix", "before"),
    [
        ((), "", "CONTAINER", "", []),
        (("c",), "i", "IMAGE", "i", ["c"]),
        (("-a", "c"), "i", "IMAGE", "i", ["c"]),
        (("--name", "n", "c"), "i", "IMAGE", "i", ["c"]),
        (("--name=n", "c"), "i", "IMAGE", "i", ["c"]),
        (("-n", "n", "c"), "i", "IMAGE", "i", ["c"]),
        (("-nn", "c"), "i", "IMAGE", "i", ["c"]),
        (("-an", "n", "c"), "i", "IMAGE", "i", ["c"]),
        (("--unknown", "c"), "i", "IMAGE", "i", ["c"]),
        (("--", "-a"), "i", "IMAGE", "i", ["-a"]),
        (("c", "i"), "-", None, "", []),
        (("c", "i", "-"), "t", "TERM", "t", ["c", "i", "-"]),
        (("c", "i", "f", "t", "t"), "t", "TERM", "t", ["c", "i", "f", "t", "t"]),
        (("--name",), "-x", "NAME", "-x", []),
        (("-an",), "x", "NAME", "x", []),
        ((), "--name=x", "NAME", "x", []),
        ((), "--all=t", "BOOLEAN", "t", []),
        ((), "--unknown=t", "", "t", []),
        ((), "--na", None, "", []),
        (("--",), "--na", "CONTAINER", "--na", []),
    ],
)
def test_place_of_the_cursor(
    words: tuple[str, ...], word: str, name: str | None, prefix: str, before: list[str]
) -> None:
    slot = find_slot(VERB, list(words), word)
    if slot is None:
        assert name is None
        return
    assert (slot.name, slot.prefix, slot.before) == (name, prefix, before)


def test_behind_a_command_nothing_is_an_option() -> None:
    slot = find_slot(LEADING, ["c", "ls"], "--all")
    assert slot is not None and slot.name == "ARG"
    assert find_slot(LEADING, ["-a"], "--al") is None


def test_verbs_and_groups() -> None:
    assert find_verb(["rmi", "a"]) == ("rmi", ["a"])
    assert find_verb(["image", "rm", "a"]) == ("rmi", ["a"])
    assert find_verb(["nosuch", ""]) is None
    assert find_verb(["image", "nosuch", ""]) is None
    assert find_verb(["help", "rmi", ""]) is None
    first = find_verb([])
    assert isinstance(first, dict) and {"rmi", "image", "help", "--version"} <= first.keys()
    image = find_verb(["image"])
    assert isinstance(image, dict) and image.keys() == door.GROUPS["image"].keys() | {"help"}
    assert find_verb(["help", "image"]) == find_verb(["image", "help"])


# The grammar


@pytest.mark.parametrize("name", sorted(door.VERBS))
def test_every_place_is_known(name: str) -> None:
    """A new word of a usage line, or a new metavariable, has to say what it stands for, if only nothing."""
    verb = door.load_verb(name)[0]
    for argument in list_arguments(verb.arguments):
        for choice in argument.removesuffix("...").split("|"):
            known = choice in completion_names.SOURCES or choice == choice.lower()
            assert known, f"{choice}: completion_names.SOURCES or NOTHING"
    for option in verb.options:
        assert option.is_flag or option.values or option.metavar in completion_names.SOURCES, (
            f"{option.metavar}: completion_names.SOURCES or NOTHING"
        )


def test_nothing_is_known_that_is_not_there() -> None:
    verbs = {name: door.load_verb(name)[0] for name in door.VERBS}
    places = {
        (name, place)
        for name, verb in verbs.items()
        for place in (
            *(argument.removesuffix("...") for argument in list_arguments(verb.arguments)),
            *(option.names[-1] for option in verb.options),
        )
    }
    assert set(completion_names.SPECIAL) <= places
    assert {*completion_names.RUNNING, *completion_names.STOPPED} <= verbs.keys()


@pytest.mark.parametrize("name", sorted(door.VERBS))
def test_options_of_each_verb(name: str, environment: dict[str, str]) -> None:
    verb = door.load_verb(name)[0]
    offered = set(ask(environment, *name.split(), "-"))
    assert offered == {"--help", *(each for option in verb.options for each in option.names)}
    for option in verb.options:
        if option.values and option.names[0].startswith("--"):
            values = ask(environment, *name.split(), f"{option.names[0]}=")
            assert set(values) == set(option.values)
            assert all(is_harmless(value) for value in option.values)


def test_values_are_those_that_are_taken(environment: dict[str, str]) -> None:
    assert {text[7:] for text in CONTAINER_FILTERS if text.startswith("status=")} == set(State.ALL)
    kinds = {text.partition("=")[0] for text in CONTAINER_FILTERS}
    assert kinds == set(KINDS)
    for text in CONTAINER_FILTERS:
        kind, _, value = text.partition("=")
        build_test(kind, [value or "1"])
    context = Call("", Options(), environment).context()
    builders = ImageFilters(context, (), ImageUsers)._builders
    assert {text.partition("=")[0] for text in IMAGE_FILTERS} == builders.keys() - {"after"}
    prune = {option.names[-1]: option for option in door.load_verb("image prune")[0].options}["--filter"]
    assert {text.partition("=")[0] for text in prune.values} == set(PRUNE_KINDS)


def test_an_option_that_counts_once(environment: dict[str, str]) -> None:
    assert "--name" in ask(environment, "create", "--na")
    assert "--name" not in ask(environment, "create", "--name", "x", "--na")
    assert "--env" in ask(environment, "create", "--env", "x", "--env")


def test_options_show_when_they_are_begun(environment: dict[str, str]) -> None:
    assert not [each for each in ask(environment, "") if each.startswith("-")]
    assert ask(environment, "--v") == ["--version"]


# Names


def make_container(environment: dict[str, str], name: str) -> None:
    directory = Path(paths(environment).created_definitions)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.toml").write_text('image = "x"\n')


def test_containers(environment: dict[str, str]) -> None:
    for name in (
        "web",
        "db",
        "tunnel@",
        "tunnel@a",
        *(n for n in HOSTILE if n.isprintable() and "/" not in n),
    ):
        make_container(environment, name)
    assert ask(environment, "rm", "") == ["db", "tunnel@a", "web"]
    assert ask(environment, "rm", "web", "") == ["db", "tunnel@a"]
    assert ask(environment, "start", "") == ["db", "tunnel@a", "web"]  # no systemd answers: none runs
    assert ask(environment, "stop", "") == []
    assert ask(environment, "exec", "web", "") == []


def test_a_container_by_its_id(environment: dict[str, str]) -> None:
    from usercontainerd.engine.containers.lookup import container_id

    make_container(environment, "web")
    identity = container_id("web")
    assert ask(environment, "rm", identity[:2]) == [identity[:12]]
    assert ask(environment, "rm", identity[:20]) == [identity[:20]]
    assert ask(environment, "rm", identity[:1]) == []


def test_logins(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    keys = ["localhost:5000", "quay.io/team", "https://index.docker.io/v1/", *HOSTILE[:-1]]
    helpers = {"ghcr.io": "nosuch"}
    file.write_text(json.dumps({"auths": {key: {"auth": "YTpi"} for key in keys}, "credHelpers": helpers}))
    environment["REGISTRY_AUTH_FILE"] = str(file)
    assert ask(environment, "logout", "") == ["docker.io", "ghcr.io", "localhost:5000", "quay.io/team"]
    assert "quay.io/team" in ask(environment, "login", "q")
    file.write_text("{")
    assert ask(environment, "logout", "") == []


def test_volumes_and_directories(environment: dict[str, str]) -> None:
    for name in ("data", *(name for name in HOSTILE if name and "\0" not in name)):
        (Path(paths(environment).data) / "volumes" / name).mkdir(parents=True)
    answer = complete_words(["create", "-v", ""], environment)
    assert list(answer.candidates) == ["data:"]
    assert answer.directive == Directive.DIRECTORIES | Directive.NO_SPACE
    assert complete_words(["create", "-v", "data:/"], environment).directive == Directive.NO_FILES


def test_variables(environment: dict[str, str]) -> None:
    environment.update({"BASH_FUNC_x%%": "() { :; }", "$(touch x)": "", "TERM": "x"})
    assert "TERM" in ask(environment, "create", "--env", "T")
    assert not [each for each in ask(environment, "exec", "-e", "") if "$" in each]


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("create", "--cap-add", "NET_A"), "NET_ADMIN"),
        (("create", "--cap-add", "CAP_NET_A"), "CAP_NET_ADMIN"),
        (("create", "--stop-signal", "SIGT"), "SIGTERM"),
        (("create", "--platform", "linux/a"), "linux/arm64"),
        (("pull", "--arch", "a"), "amd64"),
        (("import", ""), None),
        (("image", "trust", "s"), "set"),
        (("images", "--all="), "true"),
    ],
)
def test_other_places(words: tuple[str, ...], some: str | None, environment: dict[str, str]) -> None:
    answer = complete_words(list(words), environment)
    assert some in answer.candidates if some else answer.directive == Directive.FILES


def test_login_has_the_registries_that_are_searched(environment: dict[str, str]) -> None:
    # The user's own file, which comes before whatever this system has.
    directory = Path(environment["HOME"]) / ".config/containers"
    directory.mkdir(parents=True)
    (directory / "registries.conf").write_text(
        'unqualified-search-registries = ["docker.io", "quay.example"]\n'
    )
    assert {"docker.io", "quay.example"} <= set(ask(environment, "login", ""))


# What the shell gets


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_not_harmless(text: str) -> None:
    assert not is_harmless(text)


@pytest.mark.parametrize(
    "text", ["localhost:5000/a/b_c:1.2-3", f"a@sha256:{'0' * 64}", "x=y,z", "--all", "a+b%c"]
)
def test_what_is_harmless(text: str) -> None:
    assert is_harmless(text)


def test_descriptions_are_one_line_of_plain_text() -> None:
    text = render_answer(Answer({"a": "x\n\x1b[31m:4\ty", "b": "long " * 40, "c": ""}))
    lines = text.splitlines()
    assert len(lines) == 4 and lines[-1] == ":4" and lines[2] == "c"
    assert lines[0].count("\t") == 1 and lines[0].isascii() and "\x1b" not in text
    assert len(lines[1]) < 80
    assert render_answer(Answer({"a": "x"}), described=False) == "a\n:4\n"


def test_the_door(environment: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert door.main(["__complete", "image", "tre"], environment) == 0
    assert capfd.readouterr().out == f"tree\t{door.VERBS['image tree'][1]}\n:4\n"
    assert door.main(["__completeNoDesc", "image", "tre"], environment) == 0
    assert capfd.readouterr().out == "tree\n:4\n"
    assert door.main(["__complete"], environment) == 0
    assert "\nrmi\t" in capfd.readouterr().out


def test_errors_are_silent(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Answer:
        raise RuntimeError("$(touch x)")

    monkeypatch.setattr(completion, "complete_slot", fail)
    assert run_complete(["rmi", ""], environment) == 0
    assert capfd.readouterr() == (":1\n", "")


def test_nobody_waits_for_long(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    former = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(completion, "PATIENCE", 0.1)
    monkeypatch.setattr(completion, "complete_slot", lambda *_: time.sleep(30))
    try:
        assert run_complete(["rmi", ""], environment) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert capfd.readouterr() == (":1\n", "")


# The scripts


def test_no_verb_is_written_into_the_scripts() -> None:
    top = Path(__file__).resolve().parents[3] / "completions"
    for script in [*top.glob("*usercontainer*"), *top.glob("docker/*")]:
        words = set(script.read_text(encoding="utf-8").replace("_", " ").replace("-", " ").split())
        # `read`, `set` and the like are the shells' own.
        assert not words & {"rmi", "restart", "exec", "pull", "images", "prune", "inspect", "logout", "stop"}


def test_scripts_are_printed(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert door.main(["completion", shell], environment) == 0
        text = capfd.readouterr().out
        assert "usercontainer __complete" in text
        assert door.main(["completion", shell, "-f", str(tmp_path / shell)], environment) == 0
        assert (tmp_path / shell).read_text(encoding="utf-8") == text
    assert door.main(["completion", "tcsh"], environment) != 0
    assert "possible are bash" in capfd.readouterr().err
    assert door.main(["completion", "bash", "-f", str(tmp_path)], environment) != 0
