"""What registries.conf(5) means: where names lead, which mirrors are asked, what is blocked or without TLS.

A pull may be led elsewhere (``locate_all``); a push and every other request goes to the registry that the name names
(``locate``), as with Podman. ``configuration_files`` reads the files.
"""

from __future__ import annotations

from enum import StrEnum

from usercontainerd.base.errors import InvalidFormat, InvalidReference, PullDenied
from usercontainerd.base.records import dataclass
from usercontainerd.oci.reference import DOCKER_HUB, Reference, parse_reference

AUTH_FILES = "containers-auth.json"  # among credential-helpers: the files of containers-auth.json(5)


class ShortNameMode(StrEnum):
    """What is done about a short name that can mean several images."""

    ENFORCING = "enforcing"  # ask, or refuse
    PERMISSIVE = "permissive"  # ask, or try all
    DISABLED = "disabled"  # try all


class MirrorUse(StrEnum):
    """Which pulls ask a mirror."""

    ALL = "all"
    DIGEST_ONLY = "digest-only"
    TAG_ONLY = "tag-only"


@dataclass(frozen=True)
class Mirror:
    """One ``[[registry.mirror]]`` table."""

    location: str
    insecure: bool = False
    use: MirrorUse = MirrorUse.ALL

    def serves(self, reference: Reference) -> bool:
        """Tell whether it is asked for ``reference``."""
        by_digest = reference.digest is not None
        return self.use is MirrorUse.ALL or by_digest == (self.use is MirrorUse.DIGEST_ONLY)


@dataclass(frozen=True)
class RegistryEntry:
    """One ``[[registry]]`` table: what holds for names below ``prefix``; ``location`` is "" for no rewriting."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    origin: str = ""

    def match(self, name: str) -> int | None:
        """Return how many characters of ``name`` the prefix covers; None if it does not match."""
        if self.prefix.startswith("*."):
            host = name.partition("/")[0].partition(":")[0].partition("@")[0]
            return len(host) if host.endswith(self.prefix[1:]) else None
        # It ends at a boundary: a slash, a port or tag, a digest.
        length = len(self.prefix)
        matches = name.startswith(self.prefix) and (len(name) == length or name[length] in "/:@")
        return length if matches else None

    def rewrite(self, reference: Reference, location: str) -> Reference:
        """Return ``reference`` below ``location``. Raises ``InvalidFormat`` if that is no name."""
        covered = self.match(str(reference))
        if not location or covered is None:
            return reference
        text = f"{location}{str(reference)[covered:]}"
        try:
            moved = parse_reference(text)
        except InvalidReference as error:
            raise InvalidFormat(f"location {location!r} makes no name: {error}", where=self.origin) from error
        if moved.is_short:
            raise InvalidFormat(f"location {location!r} names no registry", where=self.origin)
        return moved


@dataclass(frozen=True)
class Endpoint:
    """Where to really ask for a reference: ``reference`` as the registry there names it."""

    reference: Reference
    insecure: bool = False
    is_mirror: bool = False

    @property
    def host(self) -> str:
        """Host and port of the registry's API; Docker Hub's is not at docker.io."""
        registry = self.reference.registry
        return "registry-1.docker.io" if registry == DOCKER_HUB else registry


@dataclass(frozen=True)
class Alias:
    """What a short name means; "" takes the meaning away that a weaker file has given."""

    name: str
    target: str
    origin: str = ""


@dataclass(frozen=True)
class Resolution:
    """The full names that a reference can mean, and whose word that is: ``origin`` is a file or "".

    ``short`` is the short name that was looked up, without tag; "" if the name was full.
    """

    candidates: tuple[Reference, ...]
    short: str = ""
    origin: str = ""
    by_alias: bool = False


@dataclass(frozen=True)
class RegistriesConfiguration:
    """All files together."""

    search: tuple[str, ...] = (DOCKER_HUB,)
    registries: tuple[RegistryEntry, ...] = ()
    aliases: tuple[Alias, ...] = ()
    mode: ShortNameMode = ShortNameMode.PERMISSIVE
    credential_helpers: tuple[str, ...] = (AUTH_FILES,)
    search_origin: str = ""

    def resolve(self, reference: Reference) -> Resolution:
        """Return what ``reference`` can mean in a pull, in the order in which to try it."""
        if not reference.is_short:
            return Resolution((reference,))
        short = reference.repository
        alias = self._find_alias(short)
        if alias is not None:
            return Resolution((_apply_alias(alias, reference),), short, alias.origin, by_alias=True)
        candidates = tuple(reference.with_registry(registry) for registry in self.search)
        return Resolution(candidates, short, self.search_origin)

    def candidates(self, reference: Reference) -> tuple[Reference, ...]:
        """Return the full names that a short name can mean in a pull, in the order in which to try them."""
        return self.resolve(reference).candidates

    def local_candidates(self, reference: Reference) -> tuple[Reference, ...]:
        """Return the full names under which an image may be here: the alias, localhost, then all of the search list."""
        if not reference.is_short:
            return (reference,)
        alias = self._find_alias(reference.repository)
        return (
            *(() if alias is None else (_apply_alias(alias, reference),)),
            *(reference.with_registry(registry) for registry in ("localhost", *self.search)),
        )

    def locate_all(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Return where to pull ``reference`` from, in order: its mirrors, then its own location.

        Raises ``PullDenied`` if it is blocked, ``InvalidFormat`` for a location that makes no name.
        """
        entry = self.find_entry(str(reference))
        if entry is None:
            return (Endpoint(reference),)
        mirrors = [
            Endpoint(entry.rewrite(reference, mirror.location), mirror.insecure, is_mirror=True)
            for mirror in entry.mirrors
            if mirror.serves(reference)
        ]
        own = Endpoint(entry.rewrite(reference, entry.location), entry.insecure)
        for blocked in (self._find_block(reference), self._find_block(own.reference)):
            if blocked is not None:
                raise _explain_block(blocked, reference)
        return (*(mirror for mirror in mirrors if self._find_block(mirror.reference) is None), own)

    def locate(self, reference: Reference) -> Endpoint:
        """Return where everything but a pull of ``reference`` goes: its own registry, neither mirrors nor rewriting.

        Raises ``PullDenied`` if it is blocked.
        """
        entry = self.find_entry(str(reference))
        if entry is not None and entry.blocked:
            raise _explain_block(entry, reference)
        return Endpoint(reference, entry is not None and entry.insecure)

    def find_entry(self, name: str) -> RegistryEntry | None:
        """Return what holds for ``name``, a registry, namespace or reference: the entry with the longest prefix."""
        matches = [entry for entry in self.registries if entry.match(name) is not None]
        return max(matches, key=lambda entry: len(entry.prefix), default=None)

    def _find_block(self, reference: Reference) -> RegistryEntry | None:
        entry = self.find_entry(str(reference))
        return entry if entry is not None and entry.blocked else None

    def _find_alias(self, short: str) -> Alias | None:
        alias = next((alias for alias in self.aliases if alias.name == short), None)
        return alias if alias is not None and alias.target else None


def _apply_alias(alias: Alias, reference: Reference) -> Reference:
    full = parse_reference(alias.target)
    return Reference(full.registry, full.repository, reference.tag, reference.digest)


def _explain_block(entry: RegistryEntry, reference: Reference) -> PullDenied:
    return PullDenied(
        f"{entry.prefix} is blocked by registries.conf", where=str(reference), hint=entry.origin or None
    )
