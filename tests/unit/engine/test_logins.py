"""For what a login is, and where it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument, InvalidReference
from usercontainerd.base.programs import Programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.registries.logins import LoginPlace, parse_login_key


@pytest.mark.parametrize(
    ("text", "key", "registry"),
    [
        ("quay.io", "quay.io", "quay.io"),
        ("quay.io/", "quay.io", "quay.io"),
        ("localhost:5000/team/app", "localhost:5000/team/app", "localhost:5000"),
        ("https://quay.io/v2/", "quay.io", "quay.io"),
        ("http://localhost:5000", "localhost:5000", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io", "docker.io"),
        ("index.docker.io", "docker.io", "docker.io"),
        ("registry-1.docker.io/me", "docker.io/me", "docker.io"),
        ("docker.io/me", "docker.io/me", "docker.io"),
        ("nodots", "nodots", "nodots"),
    ],
)
def test_keys(text: str, key: str, registry: str) -> None:
    assert parse_login_key(text) == (key, registry)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "a b",
        "user@quay.io",
        "quay.io/UPPER",
        "quay.io/x:1",
        f"quay.io/x@sha256:{'a' * 64}",
        "../x",
    ],
)
def test_no_keys(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_login_key(text)


def make_context(tmp_path: Path, **environment: str) -> Context:
    return build_context(
        {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/u", **environment}, Programs("/"), 1, 1
    )


@pytest.mark.parametrize(
    ("environment", "options", "path"),
    [
        ({}, (None, None), "/run/u/containers/auth.json"),
        ({"DOCKER_CONFIG": "/d"}, (None, None), "/d/config.json"),
        ({"DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/r"}, (None, None), "/r"),
        ({"REGISTRY_AUTH_FILE": "/r"}, ("/a", None), "/a"),
        ({"REGISTRY_AUTH_FILE": "/r"}, (None, "/c"), "/c"),
    ],
)
def test_places(
    tmp_path: Path, environment: dict[str, str], options: tuple[str | None, str | None], path: str
) -> None:
    assert LoginPlace(make_context(tmp_path, **environment), *options).editor.path == path


def test_two_places_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        LoginPlace(make_context(tmp_path), "/a", "/c")


def test_docker_does_not_know_the_helpers_of_registries_conf(tmp_path: Path) -> None:
    conf = tmp_path / ".config" / "containers" / "registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text('credential-helpers = ["pass"]')
    assert LoginPlace(make_context(tmp_path)).helpers == ("pass",)
    assert LoginPlace(make_context(tmp_path), None, "/c").helpers == ("containers-auth.json",)
