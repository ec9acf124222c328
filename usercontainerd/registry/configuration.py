"""registries.conf(5) version 2 and its drop-ins.

Where names lead, what is blocked, what is reached without TLS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from usercontainerd.base.errors import InvalidFormat, PullDenied
from usercontainerd.oci.reference import DOCKER_HUB, Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SYSTEM = "/etc/containers/registries.conf"
VENDOR = "/usr/share/containers/registries.conf"


@dataclass(frozen=True)
class RegistryEntry:
    """One ``[[registry]]`` table: what holds for names below ``prefix``."""

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where to really ask for a reference: ``reference`` as the registry there names it."""

    reference: Reference
    insecure: bool = False

    @property
    def host(self) -> str:
        """Host and port of the registry's API; Docker Hub's is not at docker.io."""
        registry = self.reference.registry
        return "registry-1.docker.io" if registry == DOCKER_HUB else registry


@dataclass(frozen=True)
class RegistriesConfiguration:
    """All files together."""

    search: tuple[str, ...] = (DOCKER_HUB,)
    registries: tuple[RegistryEntry, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def candidates(self, reference: Reference) -> tuple[Reference, ...]:
        """Return the full names that a short name can mean, in the order in which to try them."""
        if not reference.is_short:
            return (reference,)
        for alias, target in self.aliases:
            if alias == reference.repository:
                full = parse_reference(target)
                return (Reference(full.registry, full.repository, reference.tag, reference.digest),)
        return tuple(reference.with_registry(registry) for registry in self.search)

    def locate(self, reference: Reference) -> Endpoint:
        """Return where ``reference`` is fetched. Raises ``PullDenied`` if the configuration blocks it."""
        entry = self._longest_match(reference)
        if entry is None:
            return Endpoint(reference)
        if entry.blocked:
            raise PullDenied(
                f"the registry {entry.prefix} is blocked by registries.conf", where=str(reference)
            )
        if entry.location == entry.prefix:
            return Endpoint(reference, entry.insecure)
        rest = (
            reference.name.removeprefix(entry.prefix)
            if "*" not in entry.prefix
            else f"/{reference.repository}"
        )
        moved = parse_reference(f"{entry.location}{rest}")
        return Endpoint(
            Reference(moved.registry, moved.repository, reference.tag, reference.digest), entry.insecure
        )

    def _longest_match(self, reference: Reference) -> RegistryEntry | None:
        matches = [entry for entry in self.registries if _matches(entry.prefix, reference)]
        return max(matches, key=lambda entry: len(entry.prefix), default=None)


def _matches(prefix: str, reference: Reference) -> bool:
    if prefix.startswith("*."):
        return reference.registry.partition(":")[0].endswith(prefix[1:])
    full = str(reference)
    # The prefix ends at a boundary: a slash, a tag, a digest.
    return full == prefix or (full.startswith(prefix) and full[len(prefix)] in "/:@")


def configuration_files(home_config: str, environment: Mapping[str, str]) -> list[str]:
    """Return the files to read, weakest first; ``home_config`` is the user's ``~/.config``."""
    user = f"{home_config}/containers/registries.conf"
    override = environment.get("CONTAINERS_REGISTRIES_CONF")
    if override:
        return [override, *_drop_ins(f"{SYSTEM}.d"), *_drop_ins(f"{user}.d")]
    if os.path.exists(user):
        # A user's own file stands alone: the system's directory is not read (containers-registries.conf(5)).
        return [user, *_drop_ins(f"{user}.d")]
    main = next((path for path in (SYSTEM, VENDOR) if os.path.exists(path)), None)
    return [*([main] if main else []), *_drop_ins(f"{SYSTEM}.d"), *_drop_ins(f"{user}.d")]


def _drop_ins(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(".conf")]


def read_registries_configuration(
    home_config: str, environment: Mapping[str, str]
) -> RegistriesConfiguration:
    """Read what is there; without any file, short names mean Docker Hub. Raises ``InvalidFormat``."""
    files = configuration_files(home_config, environment)
    if not files:
        return RegistriesConfiguration()
    import tomllib

    documents = []
    for path in files:
        try:
            with open(path, "rb") as file:
                documents.append((path, tomllib.load(file)))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidFormat(f"not valid TOML: {error}", where=path) from None
        except OSError as error:
            raise InvalidFormat(f"cannot be read: {error.strerror}", where=path) from error
    return merge_configurations(documents)


def merge_configurations(documents: Iterable[tuple[str, Mapping[str, object]]]) -> RegistriesConfiguration:
    """Put parsed files together, later ones over earlier ones. Raises ``InvalidFormat`` naming the file."""
    search: tuple[str, ...] | None = None
    entries: dict[str, RegistryEntry] = {}
    aliases: dict[str, str] = {}
    for path, document in documents:
        if "registries" in document:
            raise InvalidFormat("is in the old format (version 1)", where=path, hint="see registries.conf(5)")
        if "unqualified-search-registries" in document:
            search = _texts(document["unqualified-search-registries"], "unqualified-search-registries", path)
        tables = document.get("registry", [])
        if not isinstance(tables, list):
            raise InvalidFormat("registry must be an array of tables: [[registry]]", where=path)
        for table in tables:
            entry = _parse_entry(table, path)
            entries[entry.prefix] = entry
        table = document.get("aliases", {})
        if not isinstance(table, dict):
            raise InvalidFormat("aliases must be a table", where=path)
        for name, target in table.items():
            if target:
                aliases[name] = str(target)
            else:
                aliases.pop(name, None)
    return RegistriesConfiguration(
        search=(DOCKER_HUB,) if search is None else search,
        registries=tuple(entries.values()),
        aliases=tuple(aliases.items()),
    )


def _texts(value: object, key: str, path: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidFormat(f"{key} must be an array of strings", where=path)
    return tuple(item.rstrip("/") for item in value)


def _parse_entry(table: object, path: str) -> RegistryEntry:
    if not isinstance(table, dict):
        raise InvalidFormat("registry must be an array of tables: [[registry]]", where=path)
    texts = {}
    for key in ("prefix", "location"):
        value = table.get(key, "")
        if not isinstance(value, str):
            raise InvalidFormat(f"registry.{key} must be a string", where=path)
        if "://" in value:
            raise InvalidFormat(f"registry.{key} {value!r} must not name a scheme", where=path)
        texts[key] = value.rstrip("/")
    flags = {}
    for key in ("insecure", "blocked"):
        flags[key] = table.get(key, False)
        if not isinstance(flags[key], bool):
            raise InvalidFormat(f"registry.{key} must be true or false", where=path)
    prefix = texts["prefix"] or texts["location"]
    location = texts["location"] or prefix
    if not prefix:
        raise InvalidFormat("a [[registry]] has neither prefix nor location", where=path)
    if not texts["location"] and prefix.startswith("*."):
        location = prefix
    return RegistryEntry(prefix, location, flags["insecure"], flags["blocked"])
