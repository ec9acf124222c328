"""Looking for images in registries, and for the tags of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from usercontainerd.base.errors import InvalidArgument, NoSuchImage, UsercontainerError
from usercontainerd.base.records import dataclass
from usercontainerd.engine.images.local import read_registries
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess, open_client
from usercontainerd.engine.registries.endpoints import ignore_notice
from usercontainerd.oci.reference import DOCKER_HUB, Reference, is_registry, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from usercontainerd.engine.context import Context
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.listing import Found

    Answer = TypeVar("Answer")

DEFAULT_LIMIT = 25
AT_ONCE = 6
_NO_REPOSITORY = "search"  # in names that are about a registry as a whole


@dataclass(frozen=True)
class SearchResult:
    """One repository: its full name, and ``index``, the registry in podman's short form."""

    index: str
    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


@dataclass(frozen=True)
class TagList:
    """The tags of one repository."""

    name: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class SearchFilter:
    """What a result has to be; None for no matter."""

    stars: int | None = None
    official: bool | None = None
    automated: bool | None = None

    def accepts(self, found: Found) -> bool:
        """Tell whether a result is wanted."""
        return (
            (self.stars is None or found.stars >= self.stars)
            and (self.official is None or found.official is self.official)
            and (self.automated is None or found.automated is self.automated)
        )


def parse_search_filter(texts: Sequence[str]) -> SearchFilter:
    """Read ``stars=N``, ``is-official``, ``is-official=false``, ``is-automated``. Raises ``InvalidArgument``."""
    stars: int | None = None
    flags: dict[str, bool] = {}
    for text in texts:
        kind, _, value = text.partition("=")
        if kind == "stars" and value.isascii() and value.isdecimal():
            stars = int(value)
        elif kind in ("is-official", "is-automated") and value in ("", "true", "false"):
            flags[kind] = value != "false"
        elif kind in ("stars", "is-official", "is-automated"):
            raise InvalidArgument(
                f"--filter {text}: the value is {'no number' if kind == 'stars' else 'not true or false'}"
            )
        else:
            raise InvalidArgument(
                f"--filter {text}: there is no such filter",
                hint="possible are stars=N, is-official, is-automated",
            )
    return SearchFilter(stars, flags.get("is-official"), flags.get("is-automated"))


def split_term(term: str) -> tuple[str, str]:
    """Split ``registry/what`` into its parts; the registry is "" if none is named. ``registry/`` means all of it."""
    first, slash, rest = term.partition("/")
    return (first, rest) if slash and is_registry(first) else ("", term)


def search_images(
    context: Context,
    term: str,
    *,
    limit: int = DEFAULT_LIMIT,
    wanted: SearchFilter | None = None,
    access: RegistryAccess = AS_CONFIGURED,
    notice: Callable[[str], object] = ignore_notice,
) -> list[SearchResult]:
    """Search the registry that the term names, or all unqualified-search registries; up to ``limit`` of each.

    A registry among several that cannot be searched is told to ``notice``. Raises what the only one, or the first of
    those that all failed, has raised.
    """
    keep = wanted or SearchFilter()
    registries, text = _find_registries(context, term)

    def search(client: RegistryClient, name: Reference) -> list[SearchResult]:
        from usercontainerd.registry.listing import search_repositories

        found = search_repositories(client.session, text, limit)
        return [build_result(name.registry, each) for each in found if keep.accepts(each)]

    names = [Reference(registry, _NO_REPOSITORY) for registry in registries]
    return [each for results in _ask_all(context, names, search, access, notice) for each in results]


def list_image_tags(
    context: Context,
    term: str,
    *,
    limit: int | None = None,
    access: RegistryAccess = AS_CONFIGURED,
    notice: Callable[[str], object] = ignore_notice,
) -> list[TagList]:
    """Return the tags of a repository, of each registry that a short name can mean. Raises as ``search_images``."""
    registries, text = _find_registries(context, term)
    if not text:
        raise InvalidArgument("tags can only be listed of a repository", where=term)
    names = [parse_reference(f"{registry}/{text}") for registry in registries]
    if any(name.tag is not None or name.digest is not None for name in names):
        raise InvalidArgument("the name of a repository has neither tag nor digest", where=term)

    def list_tags(client: RegistryClient, name: Reference) -> TagList:
        return TagList(name.name, tuple(client.list_tags()[:limit]))

    return _ask_all(context, names, list_tags, access, notice)


def build_result(registry: str, found: Found) -> SearchResult:
    """Say a result in podman's words: ``fedoraproject.org`` is the index of registry.fedoraproject.org. Pure."""
    labels = registry.split(".")
    name = found.name
    if registry == DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    return SearchResult(
        ".".join(labels[-2:]) if len(labels) > 2 else registry,
        f"{registry}/{name}",
        found.description,
        found.stars,
        found.official,
        found.automated,
    )


def _find_registries(context: Context, term: str) -> tuple[tuple[str, ...], str]:
    registry, text = split_term(term)
    if registry:
        # Docker Hub has several names.
        return (Reference("", _NO_REPOSITORY).with_registry(registry).registry,), text
    registries = read_registries(context).search
    if not registries:
        raise NoSuchImage("registries.conf has no unqualified-search-registries to search")
    return tuple(registries), text


def _ask_all(
    context: Context,
    names: Sequence[Reference],
    ask: Callable[[RegistryClient, Reference], Answer],
    access: RegistryAccess,
    notice: Callable[[str], object],
) -> list[Answer]:
    """Ask the registries of all names at once; the answers are in their order."""
    configuration = read_registries(context)
    answers: list[Answer] = []
    failures: list[UsercontainerError] = []
    with ExitStack() as stack:
        # Left by an exception, closing the clients ends what the threads are at.
        executor = stack.enter_context(ThreadPoolExecutor(AT_ONCE, thread_name_prefix="search"))
        futures = []
        for name in names:
            try:
                client = open_client(context, configuration.locate(name), name, access)
            except UsercontainerError as error:
                failures.append(error)
                continue
            stack.callback(client.close)
            futures.append(executor.submit(ask, client, name))
        for future in futures:
            try:
                answers.append(future.result())
            except UsercontainerError as error:
                failures.append(error)
    if failures and not answers:
        raise failures[0]
    for failure in failures:
        notice(str(failure))
    return answers
