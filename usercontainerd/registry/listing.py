"""What a registry has: tags, repositories, what refers to a manifest, and searches. All of it bounded.

The distribution specification's lists come in pages whose ``Link`` header leads to the next; it has to stay at the
registry. ``/v1/search`` is what remains of the first version of the API: Docker Hub, quay.io and Red Hat's have it.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from usercontainerd.base.errors import NoSuchImage, RegistryError
from usercontainerd.base.records import dataclass
from usercontainerd.base.typedjson import parse_json
from usercontainerd.oci.manifest import MAX_MANIFEST, OCI_INDEX, Descriptor, Index, parse_manifest
from usercontainerd.registry.origins import find_origin, resolve_target
from usercontainerd.registry.referrers import name_referrers_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usercontainerd.base.typedjson import JsonValue
    from usercontainerd.oci.digest import Digest
    from usercontainerd.registry.session import Session
    from usercontainerd.registry.transport import Response

MAX_PAGE = 4 * 1024 * 1024
MAX_PAGES = 1000
MAX_NAMES = 200_000
PAGE = 1000  # names to ask for at once; registries may give fewer
HUB_SEARCH = "https://index.docker.io/v1/search"
_CATALOGUE = ("registry:catalog:*",)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z", re.ASCII)
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._/-]{0,254}\Z", re.ASCII)
_LINK = re.compile(r'\s*<([^<>]*)>\s*((?:;\s*[a-zA-Z]+\s*=\s*(?:"[^"]*"|[^\s",;]+)\s*)*)(?:,|\Z)')
_NEXT = re.compile(r';\s*rel\s*=\s*"?next"?\s*(?:;|\Z)', re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """One repository that a search has found, by its name in the registry."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


def list_tags(session: Session) -> list[str]:
    """Return the tags of the session's repository, in its order. Raises ``NoSuchImage``, ``RegistryError``…"""
    tags: dict[str, None] = {}
    for document in _read_pages(session, session.build_url(f"tags/list?n={PAGE}"), None, _explain_missing):
        for value in document.get("tags").elements(limit=MAX_NAMES):
            tag = value.text()
            if not _TAG.match(tag):
                value.fail(f"{tag[:80]!r} is not a tag")
            tags[tag] = None
        _check_count(session, len(tags))
    return list(tags)


def list_repositories(session: Session, keep: Callable[[str], bool], limit: int) -> list[str]:
    """Return the names of the registry's repositories that ``keep`` wants, at most ``limit``.

    Raises ``NoSuchImage`` if the registry has no catalogue.
    """
    found: list[str] = []
    url = f"{session.find_base()}/v2/_catalog?n={PAGE}"
    seen = 0
    for document in _read_pages(session, url, _CATALOGUE, _explain_no_catalogue):
        names = [value.text() for value in document.get("repositories").elements(limit=MAX_NAMES)]
        found.extend(name for name in names if _REPOSITORY.match(name) and keep(name))
        if len(found) >= limit:
            return found[:limit]
        seen += len(names)
        _check_count(session, seen)
    return found


def search_repositories(session: Session, text: str, limit: int) -> list[Found]:
    """Ask the registry's ``/v1/search``, else look through its catalogue for names with ``text`` in them."""
    if text:
        url = f"{session.find_base()}/v1/search"
        found = _search(session, HUB_SEARCH if _is_hub(session) else url, text, limit)
        if found is not None:
            return found
    return [Found(name) for name in list_repositories(session, lambda name: text in name, limit)]


def list_referrers(session: Session, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
    """Return what refers to a manifest (signatures, bills of material), of one type or of all.

    Where the registry has no referrers API, the index under the tag ``ALGORITHM-HEX`` is taken instead
    (distribution specification 1.1, "Unavailable Referrers API").
    """
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    response = session.get(f"referrers/{digest}{query}", {"Accept": OCI_INDEX})
    if response.status == 404:
        response.close()
        response = session.get(f"manifests/{name_referrers_tag(digest)}", {"Accept": OCI_INDEX})
        if response.status == 404:
            response.close()
            return []
        found = list(_parse_referrers(session, response))
    else:
        found = list(_parse_referrers(session, response))
        url = response.url
        for _ in range(MAX_PAGES):
            following = _find_next(session, url, response)
            if following is None:
                break
            url = following
            response = session.request("GET", url, {"Accept": OCI_INDEX})
            found.extend(_parse_referrers(session, response))
            _check_count(session, len(found))
    # A registry need not filter, and the tag's index never is.
    return [each for each in found if not artifact_type or each.artifact_type == artifact_type]


def _parse_referrers(session: Session, response: Response) -> tuple[Descriptor, ...]:
    session.expect(response, (200,))
    document = parse_manifest(response.read_all(MAX_MANIFEST), OCI_INDEX, where=session.repository)
    return document.manifests if isinstance(document, Index) else ()


def _is_hub(session: Session) -> bool:
    return session.endpoint.host == "registry-1.docker.io"


def _search(session: Session, url: str, text: str, limit: int) -> list[Found] | None:
    """Ask one ``/v1/search``, without credentials; None if there is none."""
    url = f"{url}?{urlencode({'q': text, 'n': limit})}"
    response = session.follow("GET", url, {"Accept": "application/json"}, None)
    if response.status != 200:
        detail = session.read_error(response)
        if _is_hub(session):
            raise RegistryError(f"the search fails with status {response.status}{detail}", where=url)
        return None
    document = parse_json(response.read_all(MAX_PAGE), "search", limit=MAX_PAGE, source=url)
    results = [_parse_result(value) for value in document.get("results").elements(limit=MAX_NAMES)]
    return [each for each in results if each.name][:limit]


def _parse_result(value: JsonValue) -> Found:
    return Found(
        value.get("name").text(""),
        value.get("description").text(""),
        value.get("star_count").integer(0),
        value.get("is_official").boolean(),
        value.get("is_automated").boolean(),
    )


def _read_pages(
    session: Session, url: str, scope: tuple[str, ...] | None, explain: Callable[[Session], NoSuchImage]
) -> Iterator[JsonValue]:
    seen = set()
    for _ in range(MAX_PAGES):
        seen.add(url)
        response = session.request("GET", url, {"Accept": "application/json"}, scope=scope)
        if response.status == 404:
            response.close()
            raise explain(session)
        session.expect(response, (200,))
        yield parse_json(response.read_all(MAX_PAGE), "list", limit=MAX_PAGE, source=url)
        following = _find_next(session, url, response)
        if following is None:
            return
        if following in seen:
            raise RegistryError("the registry's list leads back to where it was", where=following)
        url = following
    raise RegistryError(f"the registry's list has more than {MAX_PAGES} pages", where=url)


def _find_next(session: Session, url: str, response: Response) -> str | None:
    """Return where the ``Link`` header of a page leads (RFC 8288), which has to be at the registry."""
    link = parse_next_link(response.header("Link"))
    if link is None:
        return None
    target = resolve_target(url, link, registry=find_origin(url)[1])
    if find_origin(target) != find_origin(session.find_base()):
        raise RegistryError(f"the registry's list goes on at {target[:200]!r}, which is elsewhere", where=url)
    return quote(target, safe=":/?#[]@!$&'()*+,;=%~")


def parse_next_link(header: str) -> str | None:
    """Return the target of ``rel=next`` in a ``Link`` header, None if there is none."""
    at = 0
    header = header[:16384]
    while at < len(header):
        match = _LINK.match(header, at)
        if match is None:
            return None
        if _NEXT.search(match[2]):
            return match[1]
        at = match.end()
    return None


def _check_count(session: Session, count: int) -> None:
    if count > MAX_NAMES:
        raise RegistryError(
            f"the registry's list has more than {MAX_NAMES} entries", where=session.repository
        )


def _explain_missing(session: Session) -> NoSuchImage:
    return NoSuchImage("the registry has no such repository", where=session.repository)


def _explain_no_catalogue(session: Session) -> NoSuchImage:
    return NoSuchImage(
        "the registry cannot be searched: it has no catalogue", where=session.endpoint.reference.registry
    )
