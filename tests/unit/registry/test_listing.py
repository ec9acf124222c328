"""Tags, catalogue, referrers and searches, from registries that mean well and others."""

from __future__ import annotations

import json

import pytest

from tests.support.fakeregistry import OCI_INDEX, OCI_MANIFEST, FakeRegistry, Handler, digest_of
from tests.support.registryclients import Make
from usercontainerd.base.errors import InvalidFormat, NoSuchImage, PullDenied, RegistryError
from usercontainerd.oci.digest import Digest
from usercontainerd.registry.listing import (
    Found,
    list_referrers,
    list_repositories,
    parse_next_link,
    search_repositories,
)

TAGS = "/v2/app/tags/list"
SUBJECT = Digest(digest_of(b"subject"))


def serve_pages(registry: FakeRegistry, path: str, key: str, *pages: list[str]) -> None:
    """A list in pages: ``?last=N`` asks for page N."""

    def serve(handler: Handler) -> None:
        _, _, query = handler.path.partition("last=")
        number = int(query or 0)
        headers = {}
        if number + 1 < len(pages):
            headers["Link"] = f'<{path}?last={number + 1}>; rel="next"'
        handler.answer(200, json.dumps({key: pages[number]}).encode(), headers)

    registry.rules[path] = serve


def test_tags(registry: FakeRegistry, make_client: Make) -> None:
    serve_pages(registry, TAGS, "tags", ["b", "c"], [], ["a", "b"])
    assert make_client().list_tags() == ["b", "c", "a"]


def test_no_tags(registry: FakeRegistry, make_client: Make) -> None:
    registry.rules[TAGS] = lambda h: h.answer(200, b'{"name": "app", "tags": null}')
    assert make_client().list_tags() == []
    registry.rules[TAGS] = lambda h: h.answer(404)
    with pytest.raises(NoSuchImage, match="no such repository"):
        make_client().list_tags()


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("http://127.0.0.2:9/v2/app/tags/list?last=x", "elsewhere"),
        ("https://registry.example/v2/app/tags/list", "elsewhere"),
        ("file:///etc/passwd", "not allowed"),
        (TAGS + "?last=a", "leads back"),
        ("//user@x/", "user name"),
    ],
)
def test_bad_links(registry: FakeRegistry, make_client: Make, link: str, message: str) -> None:
    registry.rules[TAGS] = lambda h: h.answer(200, b'{"tags": ["a"]}', {"Link": f"<{link}>; rel=next"})
    with pytest.raises(RegistryError, match=message):
        make_client().list_tags()
    assert len(registry.seen) < 6


def test_pages_without_end(
    registry: FakeRegistry, make_client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usercontainerd.registry.listing.MAX_PAGES", 20)

    def serve(handler: Handler) -> None:
        number = len(registry.seen)
        handler.answer(200, b'{"tags": ["a"]}', {"Link": f"<{TAGS}?last={number}>; rel=next"})

    registry.rules[TAGS] = serve
    with pytest.raises(RegistryError, match="more than 20 pages"):
        make_client().list_tags()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"tags": ["a/../b"]}', "not a tag"),
        (b'{"tags": [5]}', "expected a string"),
        (b'{"tags": {"a": 1}}', "expected an array"),
        (b"[]", "expected an object"),
        (b"<html>", "not valid JSON"),
        (b'{"tags": ["a"]' + b" " * 5_000_000 + b"}", "longer than"),
    ],
)
def test_garbage(registry: FakeRegistry, make_client: Make, body: bytes, message: str) -> None:
    registry.rules[TAGS] = lambda h: h.answer(200, body)
    with pytest.raises((InvalidFormat, RegistryError), match=message):
        make_client().list_tags()


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</a>; rel="next"', "/a"),
        ("</a>; rel=next", "/a"),
        ('</p>; rel="prev", </n>; title="x, y"; rel="next"', "/n"),
        ('</a>; rel="nextish"', None),
        ("</a>", None),
        ("", None),
        ("nonsense" * 10_000, None),
    ],
)
def test_link_header(header: str, target: str | None) -> None:
    assert parse_next_link(header) == target


def test_catalogue(registry: FakeRegistry, make_client: Make) -> None:
    serve_pages(registry, "/v2/_catalog", "repositories", ["one", "two/app"], ["app", "../bad", "x\x1b[2J"])
    session = make_client().session
    assert list_repositories(session, lambda name: "app" in name, 10) == ["two/app", "app"]
    assert list_repositories(session, lambda name: True, 1) == ["one"]
    assert list_repositories(session, lambda name: True, 100) == ["one", "two/app", "app"]


def test_catalogue_has_a_scope_of_its_own(registry: FakeRegistry, make_client: Make) -> None:
    registry.token = "secret"
    with pytest.raises(NoSuchImage, match="no catalogue"):
        list_repositories(make_client().session, lambda name: True, 1)
    assert any("scope=registry%3Acatalog%3A%2A" in path for path in registry.paths())
    registry.rules["/v2/_catalog"] = lambda h: h.answer(401)
    with pytest.raises(PullDenied):
        list_repositories(make_client().session, lambda name: True, 1)


def test_search(registry: FakeRegistry, make_client: Make) -> None:
    result = {"name": "app", "description": "An app", "star_count": 7, "is_official": True}
    registry.rules["/v1/search"] = lambda h: h.answer(200, json.dumps({"results": [result, {}]}).encode())
    found = search_repositories(make_client().session, "app", 5)
    assert found == [Found("app", "An app", 7, official=True)]
    assert registry.seen[-1][0] == "/v1/search?q=app&n=5"
    del registry.rules["/v1/search"]
    serve_pages(registry, "/v2/_catalog", "repositories", ["app", "other"])
    assert search_repositories(make_client().session, "pp", 5) == [Found("app")]
    assert search_repositories(make_client().session, "", 5) == [Found("app"), Found("other")]


def build_index(*kinds: str) -> bytes:
    manifests = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(kind.encode()), "size": 9, "artifactType": kind}
        for kind in kinds
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def test_referrers(registry: FakeRegistry, make_client: Make) -> None:
    path = f"/v2/app/referrers/{SUBJECT}"

    def serve(handler: Handler) -> None:
        if handler.path.endswith("page=2"):
            handler.answer(200, build_index("bom"))
        else:
            handler.answer(200, build_index("sig"), {"Link": f'<{path}?page=2>; rel="next"'})

    registry.rules[path] = serve
    session = make_client().session
    assert [each.artifact_type for each in list_referrers(session, SUBJECT)] == ["sig", "bom"]
    assert [each.artifact_type for each in list_referrers(session, SUBJECT, "bom")] == ["bom"]


def test_referrers_by_tag(registry: FakeRegistry, make_client: Make) -> None:
    session = make_client().session
    assert list_referrers(session, SUBJECT) == []
    registry.add_manifest("app", SUBJECT.replace(":", "-"), build_index("sig", "bom"), OCI_INDEX)
    assert [each.artifact_type for each in list_referrers(session, SUBJECT, "sig")] == ["sig"]
