"""What a search term and its filters mean: pure."""

from __future__ import annotations

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.registries.searching import build_result, parse_search_filter, split_term
from usercontainerd.registry.listing import Found


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("app", ("", "app")),
        ("me/app", ("", "me/app")),
        ("quay.io", ("", "quay.io")),
        ("quay.io/", ("quay.io", "")),
        ("quay.io/me/app", ("quay.io", "me/app")),
        ("localhost/app", ("localhost", "app")),
        ("localhost:5000/app", ("localhost:5000", "app")),
    ],
)
def test_term(term: str, parts: tuple[str, str]) -> None:
    assert split_term(term) == parts


def test_filters() -> None:
    popular = Found("a", stars=9, official=True)
    assert parse_search_filter([]).accepts(popular)
    assert parse_search_filter(["stars=9", "is-official"]).accepts(popular)
    assert not parse_search_filter(["stars=10"]).accepts(popular)
    assert not parse_search_filter(["is-official=false"]).accepts(popular)
    assert not parse_search_filter(["is-automated=true"]).accepts(popular)
    for text in ("stars", "stars=-1", "is-official=x", "color=red", ""):
        with pytest.raises(InvalidArgument):
            parse_search_filter([text])


@pytest.mark.parametrize(
    ("registry", "found", "index", "name"),
    [
        ("docker.io", "alpine", "docker.io", "docker.io/library/alpine"),
        ("docker.io", "me/app", "docker.io", "docker.io/me/app"),
        ("quay.io", "app", "quay.io", "quay.io/app"),
        ("registry.fedoraproject.org", "f", "fedoraproject.org", "registry.fedoraproject.org/f"),
        ("localhost:5000", "x", "localhost:5000", "localhost:5000/x"),
    ],
)
def test_names_as_podman_has_them(registry: str, found: str, index: str, name: str) -> None:
    result = build_result(registry, Found(found))
    assert (result.index, result.name) == (index, name)
