"""Searching: a real registry as podman sees it, several at once, and one with a search of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import run
from tests.support.fakeregistry import FakeRegistry, Handler
from tests.support.images import ImageMaker
from tests.support.realregistry import PASSWORD, USER, RealRegistry

HOME = "localhost:5000"
RESULTS = [
    {"name": "app", "description": "One\x1b[2J  app", "star_count": 7, "is_official": True},
    {"name": "me/app", "description": "x" * 60, "star_count": 1, "is_automated": True},
]


def search(*words: str, program: str = "usercontainer") -> str:
    return run(program, "search", *words).stdout


@pytest.mark.parametrize(
    "words",
    [
        [f"{HOME}/busy"],
        [f"{HOME}/nothing"],
        ["--compatible", f"{HOME}/busy"],
        ["--format", "{{.Name}}|{{.Index}}|{{.Stars}}|{{.Official}}|{{.Description}}", f"{HOME}/busy"],
        ["--filter", "is-official", f"{HOME}/busy"],
        ["--filter", "stars=1", f"{HOME}/busy"],
        ["--limit", "1", "--list-tags", f"{HOME}/multi"],
        ["--list-tags", "--format", "{{.Name}} {{.Tag}}", f"{HOME}/multi"],
    ],
)
def test_as_podman(words: list[str]) -> None:
    ours, theirs = search(*words), search(*words, program="podman")
    assert [line.split() for line in ours.splitlines()] == [line.split() for line in theirs.splitlines()]


@pytest.mark.parametrize("words", [[f"{HOME}/busybox"], ["--list-tags", f"{HOME}/multi"]])
def test_json_as_podman(words: list[str]) -> None:
    ours, theirs = (search("--format", "json", *words, program=each) for each in ("usercontainer", "podman"))
    assert json.loads(ours) == json.loads(theirs)


def test_everything_that_a_registry_has() -> None:
    names = search("--format", "{{.Name}}", f"{HOME}/").split()
    assert {f"{HOME}/busybox", f"{HOME}/multi"} <= set(names)


@pytest.fixture
def hub(images: ImageMaker) -> Iterator[FakeRegistry]:
    """A registry with a search of its own, which short terms mean, too."""

    def answer(handler: Handler) -> None:
        handler.answer(200, json.dumps({"results": RESULTS}).encode())

    images.registry.rules["/v1/search"] = answer
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    drop_in = config / "containers/registries.conf.d/search.conf"
    registries = json.dumps([images.host, "localhost:1"])
    drop_in.write_text(f"unqualified-search-registries = {registries}\n", encoding="utf-8")
    yield images.registry
    drop_in.unlink()


def test_a_search_of_its_own(hub: FakeRegistry) -> None:
    output = search("--compatible", f"{hub.host}/app")
    rows = [line.split() for line in output.splitlines()]
    assert rows[0] == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]
    assert rows[1] == [f"{hub.host}/app", "One\\x1b[2J", "app", "7", "[OK]"]
    assert rows[2] == [f"{hub.host}/me/app", "x" * 41 + "...", "1", "[OK]"]
    assert search("--filter=stars=5", "--format={{.Name}}", f"{hub.host}/app") == f"{hub.host}/app\n"
    assert "x" * 60 in search("--no-trunc", f"{hub.host}/app")


def test_one_of_several_registries_fails(hub: FakeRegistry) -> None:
    result = run("usercontainer", "search", "--format", "{{.Name}}", "app")
    assert result.stdout.split() == [f"{hub.host}/app", f"{hub.host}/me/app"]
    assert "localhost:1" in result.stderr
    assert "refused" in result.stderr


def test_with_a_login(secure_registry: RealRegistry) -> None:
    certificates = ["--cert-dir", str(secure_registry.certificates)]
    result = run("usercontainer", "search", *certificates, f"{secure_registry.host}/", check=False)
    assert result.returncode == 125
    assert "refuses access" in result.stderr
    assert search(*certificates, "--creds", f"{USER}:{PASSWORD}", f"{secure_registry.host}/nothing") == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--list-tags", f"{HOME}/"], "only be listed of a repository"),
        (["--list-tags", f"{HOME}/nothing"], "no such repository"),
        (["--list-tags", f"{HOME}/busybox:latest"], "neither tag nor digest"),
        (["--filter", "foo=x", "app"], "no such filter"),
        (["--filter", "stars=x", "app"], "no number"),
        (["--filter", "is-official=x", "app"], "not true or false"),
        (["--limit", "x", "app"], "no number of results"),
        (["localhost:1/app"], "refused"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    result = run("usercontainer", "search", *words, check=False)
    assert result.returncode == 125
    assert message in result.stderr
