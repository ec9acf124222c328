"""Completion in real shells: keys go into a terminal, and what the shell makes of them is what the command gets.

``usercontainer`` answers the shell as it is; a command line that is carried out is shown instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, run
from tests.support.places import Place
from tests.support.shells import PROMPT, Shell
from usercontainerd.engine.containers.lookup import list_known

TOP = Path(__file__).resolve().parents[2]
SHELLS = ("bash", "zsh", "fish")
SHOWN = """#!/bin/sh
case $1 in __complete* | completion) exec /usr/bin/usercontainer "$@" ;; esac
printf 'RA%s' N; printf ' <%s>' "$@"; printf ' EN%s\\n' D
"""
LOAD = {
    "bash": f"source {TOP}/completions/usercontainer.bash",
    "zsh": ":",  # by compinit, from where it is installed
    "fish": ":",  # likewise, at the first use
}


@pytest.fixture(scope="module", autouse=True)
def containers() -> Iterator[None]:
    # What other tests have left would be offered, too.
    if names := list_known(Place().paths):
        run("usercontainer", "rm", "-f", "--ignore", *names)
    run("usercontainer", "rmi", "-f", "-a")
    run("usercontainer", "pull", "-q", BUSYBOX)
    for name in ("web", "db"):
        run("usercontainer", "create", "--name", name, BUSYBOX, "sleep", "1000")
    run("usercontainer", "start", "web")
    yield
    run("usercontainer", "rm", "-f", "web", "db")
    run("usercontainer", "rmi", "-a")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The shell's home, and where its commands are."""
    for name in ("bin", "home", "home/some.directory"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "a file.toml").touch()
    command = tmp_path / "bin" / "usercontainer"
    command.write_text(SHOWN)
    command.chmod(0o755)
    return tmp_path


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, place: Path) -> Iterator[Shell]:
    with open_shell(request.param, place) as opened:
        yield opened


@contextmanager
def open_shell(kind: str, place: Path, load: str | None = None) -> Iterator[Shell]:
    # The containers stay alice's, although the shell's home is another.
    data = {
        "XDG_DATA_HOME": str(Path.home() / ".local/share"),
        "XDG_CONFIG_HOME": str(place / "home/.config"),
    }
    shell = Shell(kind, place / "home", place / "bin", **data)
    try:
        shell.run(LOAD[kind] if load is None else load)
        yield shell
    finally:
        shell.close()


def carried_out(shell: Shell, keys: str) -> str:
    """What the command gets of a line that is typed with these keys."""
    text = shell.run(keys, " END")
    shell.read_until(PROMPT)
    return text.rpartition("RAN ")[2].removesuffix(" END")


# What is typed, with a tabulator at the end or in the middle, and the words that the command gets.
LINES = {
    "usercontainer imp\tx": "<import> <x>",
    "usercontainer image tre\tx": "<image> <tree> <x>",
    "usercontainer help doc\t": "<help> <doctor>",
    "usercontainer image help tre\t": "<image> <help> <tree>",
    "usercontainer logs --foll\tx": "<logs> <--follow> <x>",
    "usercontainer stop w\t": "<stop> <web>",
    "usercontainer stop d\t": "<stop> <d>",
    "usercontainer start d\t": "<start> <db>",
    "usercontainer start we\t": "<start> <we>",
    "usercontainer exec -it w\tsh": "<exec> <-it> <web> <sh>",
    "usercontainer container restart web d\t": "<container> <restart> <web> <db>",
    "usercontainer rmi loc\t": f"<rmi> <{BUSYBOX}>",
    "usercontainer rmi localhost:5000/bu\t": f"<rmi> <{BUSYBOX}>",
    "usercontainer rmi localhost:\t": f"<rmi> <{BUSYBOX}>",
    "usercontainer rmi localhost:5000/busybox:l\t": f"<rmi> <{BUSYBOX}>",
    "usercontainer rmi 'localhost:5000/b\t": f"<rmi> <{BUSYBOX}>",
    "usercontainer create --pull=nev\ti": "<create> <--pull=never> <i>",
    "usercontainer create --pull nev\ti": "<create> <--pull> <never> <i>",
    "usercontainer ps --filter status=ru\t": "<ps> <--filter> <status=running>",
    "usercontainer ps --filter=status=ru\t": "<ps> <--filter=status=running>",
    "usercontainer verify a\t": "<verify> <a file.toml>",
    "usercontainer create --env-file a\ti": "<create> <--env-file> <a file.toml> <i>",
    "usercontainer create --env-file=a\ti": "<create> <--env-file=a file.toml> <i>",
    "usercontainer completion z\t": "<completion> <zsh>",
    "usercontainer nosuch \t": "<nosuch>",
    "usercontainer exec web a\t": "<exec> <web> <a>",
}
SHOWN_INSTEAD = {"usercontainer completion z\t"}


def test_lines(shell: Shell) -> None:
    got = {keys: carried_out(shell, keys) for keys in LINES if keys not in SHOWN_INSTEAD}
    assert got == {keys: words for keys, words in LINES.items() if keys not in SHOWN_INSTEAD}


def test_a_script_is_printed(shell: Shell) -> None:
    shell.press("usercontainer completion z\t\n")
    shell.read_until("#compdef usercontainer")


def test_directories(shell: Shell) -> None:
    assert carried_out(shell, "usercontainer create -v so\t") in (
        "<create> <-v> <some.directory/>",
        "<create> <-v> <some.directory>",  # zsh takes the slash away again
    )


def test_what_is_possible_is_shown(shell: Shell) -> None:
    shell.press("usercontainer image i\t\t")
    shown = shell.read_until("inspect")
    assert "import" in shown and "import-storage" in shown
    if shell.kind != "bash":
        assert "Make an image of one layer" in shown


def test_cursor_in_the_middle(shell: Shell) -> None:
    keys = "usercontainer rmi localhost:5000/bu other" + "\x1b[D" * len(" other") + "\t"
    assert carried_out(shell, keys) == f"<rmi> <{BUSYBOX}> <other>"


@pytest.mark.parametrize("kind", SHELLS)
def test_nothing_typed_is_evaluated(kind: str, place: Path) -> None:
    # zsh's own expand-or-complete would expand.
    with open_shell(kind, place, "bindkey '^I' complete-word" if kind == "zsh" else None) as shell:
        for word in (
            "$(touch x)",
            "`touch x`",
            "'$(touch x)",
            '"$(touch x)',
            "a;touch x;",
            "${HOME:=$(touch x)}",
        ):
            for line in (
                f"usercontainer rmi {word}\t",
                f"usercontainer rmi {word} \t",
                f"usercontainer {word} \t",
            ):
                shell.press(line)
                shell.forget_line()
    assert not [path for path in place.rglob("x") if path.name == "x"]


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize(
    "answer",
    [
        r"$(touch x)\n:4",
        r"`touch x`\t`touch x`\n:4",
        r"a[$(touch x)]\n:4",
        ":$(touch x)",
        r"a\n:4[$(touch x)]",
    ],
)
def test_nothing_answered_is_evaluated(kind: str, answer: str, place: Path) -> None:
    (place / "bin" / "usercontainer").write_text(f"#!/bin/sh\nprintf '{answer}\\n'\ntouch called\n")
    with open_shell(kind, place) as shell:
        shell.press("usercontainer rmi \t\t")
        shell.forget_line()
    assert (place / "home" / "called").exists()
    assert not [path for path in place.rglob("x") if path.name == "x"]


@pytest.mark.parametrize("breaks", [" \t\n", " \t\n=", " \t\n\"'@><=;|&(:"])
def test_characters_that_part_words(breaks: str, place: Path) -> None:
    quoted = "$'" + breaks.replace("\t", "\\t").replace("\n", "\\n").replace("'", "\\'") + "'"
    with open_shell("bash", place, f"COMP_WORDBREAKS={quoted}; {LOAD['bash']}") as shell:
        for keys in ("usercontainer rmi localhost:5000/bu\t", "usercontainer rmi localhost:\t"):
            assert carried_out(shell, keys) == f"<rmi> <{BUSYBOX}>"
        assert carried_out(shell, "usercontainer create --pull=nev\ti") == "<create> <--pull=never> <i>"


def test_bash_completion_loads_it(place: Path) -> None:
    with open_shell("bash", place, "source /usr/share/bash-completion/bash_completion") as shell:
        assert carried_out(shell, "usercontainer rmi localhost:5000/bu\t") == f"<rmi> <{BUSYBOX}>"


def test_redirections_complete_files(place: Path) -> None:
    with open_shell("bash", place) as shell:
        shell.run("usercontainer stop web > a\t")
    assert "<stop> <web>" in (place / "home" / "a file.toml").read_text()


PRINTED = {
    "bash": "source <(usercontainer completion bash)",
    "zsh": "source <(usercontainer completion zsh)",
    "fish": "usercontainer completion fish | source",
}


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_other_names(kind: str, name: str, place: Path) -> None:
    shutil.copy(TOP / "compat" / name, place / "bin" / name)
    with open_shell(kind, place, PRINTED[kind]) as shell:
        assert carried_out(shell, f"{name} rmi localhost:5000/bu\t") == f"<rmi> <{BUSYBOX}>"


@pytest.mark.parametrize("kind", SHELLS)
def test_aliases(kind: str, place: Path) -> None:
    with open_shell(kind, place, f"alias docker=usercontainer; {PRINTED[kind]}") as shell:
        assert carried_out(shell, "docker rmi localhost:5000/bu\t") == f"<rmi> <{BUSYBOX}>"


@pytest.mark.parametrize("kind", SHELLS)
def test_others_commands_are_left_alone(kind: str, place: Path) -> None:
    """A podman that is Podman's."""
    (place / "bin" / "podman").write_bytes(b"\x7fELF\0\0" + b"\0" * 4096)
    (place / "bin" / "podman").chmod(0o755)
    asks = {"bash": "complete -p podman", "zsh": "echo ${_comps[podman]}", "fish": "complete -c podman"}
    with open_shell(kind, place, PRINTED[kind]) as shell:
        assert "_usercontainer" not in shell.run(asks[kind]).partition("podman")[2]


def test_scripts_of_the_package_for_docker(place: Path) -> None:
    """What a package puts beside the others where docker is usercontainer: lazily loaded by each shell."""
    shutil.copy(TOP / "compat" / "docker", place / "bin" / "docker")
    home = place / "home"
    for directory in (".local/share/bash-completion/completions", ".config/fish/completions", "zsh"):
        (home / directory).mkdir(parents=True)
    files = TOP / "completions" / "docker"
    shutil.copy(files / "docker.bash", home / ".local/share/bash-completion/completions")
    shutil.copy(files / "docker.fish", home / ".config/fish/completions")
    shutil.copy(files / "_usercontainer-docker", home / "zsh")
    loads = {
        "bash": f"BASH_COMPLETION_USER_DIR={home}/.local/share/bash-completion; "
        "source /usr/share/bash-completion/bash_completion",
        "zsh": f"fpath=({home}/zsh $fpath); compinit -D -u",
        "fish": ":",
    }
    for kind, load in loads.items():
        with open_shell(kind, place, load) as shell:
            assert carried_out(shell, "docker rmi localhost:5000/bu\t") == f"<rmi> <{BUSYBOX}>"
